//! Listening to what a client says first: whoever reads next begins with it.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use super::road::{Stop, Walk};
use crate::flow::reason::Reason;
use crate::runtime::io::Io;
use crate::runtime::{Sleep, ready};

/// Shows `judge` the first bytes, up to `most`, as often as there are more of them, until it comes
/// to something. The second argument says that there won't be more: the client has ended, there is
/// no room, or the time is over. Then it must come to something.
pub async fn overhear<T>(
    walk: &Walk,
    client: &Io,
    most: usize,
    until: Option<Instant>,
    mut judge: impl FnMut(&[u8], bool) -> Option<T>,
) -> Result<T, Stop> {
    let mut patience = Sleep::new(&walk.worker, until);
    poll_fn(|_| {
        if client.is(ready::ERROR) {
            return Poll::Ready(Err(Stop::bare(Reason::ClientReset)));
        }
        let over = patience.is_due();
        let mut scratch = walk.worker.scratch.borrow_mut();
        loop {
            let read = match client.gather(&mut scratch, most) {
                Poll::Ready(Ok(came)) => Some(came),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::bare(Reason::ClientReset))),
                Poll::Pending => None,
            };
            let early = client.early();
            let seen = &early[..early.len().min(most)];
            let last = read == Some(false) || over || seen.len() == most;
            if let Some(judged) = judge(seen, last) {
                return Poll::Ready(Ok(judged));
            }
            if read.is_none() {
                return Poll::Pending;
            }
        }
    })
    .await
}

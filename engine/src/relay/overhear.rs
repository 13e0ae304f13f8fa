//! Listening to what a client says first, without taking any of it: whoever comes next finds it as
//! it was.

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
    let judged = poll_fn(|_| {
        if client.is(ready::ERROR) {
            return Poll::Ready(Err(Stop::bare(Reason::ClientReset)));
        }
        let ended = client.is(ready::HANGUP);
        let over = patience.is_due();
        if over {
            // What came before counts, although nothing more has come.
            client.has_unread();
        }
        let mut scratch = walk.worker.scratch.borrow_mut();
        let seen = match client.peek(&mut scratch[..most]) {
            Poll::Ready(Ok(count)) => &scratch[..count],
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::bare(Reason::ClientReset))),
            Poll::Pending => &[],
        };
        match judge(seen, ended || over || seen.len() == most) {
            Some(judged) => Poll::Ready(Ok(judged)),
            None => {
                client.await_more();
                Poll::Pending
            }
        }
    })
    .await?;
    client.has_unread();
    Ok(judged)
}

//! A decision of the owner's about each flow: a question goes out, with the client's first bytes if
//! the plan asks for them, and the flow waits for the answer. All other flows go on meanwhile.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::endpoint::{PlanError, limit};
use super::overhear::overhear;
use super::reach::Aim;
use super::road::{Stop, Walk};
use crate::flow::reason::Reason;
use crate::flow::table::State;
use crate::net::fd::Fd;
use crate::net::socket::check;
use crate::plan::{Balance, EndpointPlan, OnFailure};
use crate::runtime::io::Io;
use crate::runtime::{SCRATCH, Sleep, TaskId, Worker, ready};

/// Flows of one endpoint that may wait for an answer at once.
const MOST_PENDING: u64 = 4_096;
/// Bytes of questions that may wait to be fetched.
const MOST_QUEUED: usize = 64 << 20;
/// Questions fetched at a time, so that whoever answers gets to other things between.
const BATCH: usize = 256;
/// Of a reason that the owner gives, so many bytes are kept.
const LONGEST_REASON: usize = 500;

/// What a route's questions have in common.
#[derive(Debug)]
pub struct Hook {
    first_bytes: usize,
    timeout: Option<Duration>,
    on_failure: OnFailure,
    /// Whether an answer may choose the remote.
    chooses: bool,
    remotes: usize,
    /// The part that is the same in every question, without the brace at its end.
    common: String,
    tally: Arc<Tally>,
}

/// What became of an endpoint's questions. It goes on over changes of the plan.
#[derive(Debug, Default)]
struct Tally {
    pending: AtomicU64,
    allowed: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// What the owner decided about the flow of that number.
#[derive(Debug, Deserialize)]
pub struct Answer {
    id: u64,
    #[serde(flatten)]
    verdict: Verdict,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
enum Verdict {
    Allow,
    Remote { index: u64 },
    Refuse { reason: String },
    Failed { reason: String },
}

impl Hook {
    pub fn prepare(plan: &EndpointPlan, former: Option<&Self>) -> Result<Option<Self>, PlanError> {
        let Some(hook) = &plan.hook else {
            return Ok(None);
        };
        let first_bytes = hook.first_bytes as usize;
        if first_bytes > SCRATCH {
            return Err(PlanError {
                field: "hook.first_bytes",
                value: first_bytes.to_string(),
                why: format!("more than {SCRATCH}"),
            });
        }
        let remotes: Vec<_> = plan
            .remotes
            .iter()
            .map(|remote| match remote.host.contains(':') {
                true => format!("[{}]:{}", remote.host, remote.port),
                false => format!("{}:{}", remote.host, remote.port),
            })
            .collect();
        let mut common = json!({
            "kind": "ask",
            "endpoint": plan.id,
            "call": hook.call,
            "remotes": remotes,
        })
        .to_string();
        common.pop();
        Ok(Some(Self {
            first_bytes,
            timeout: limit("hook.timeout", hook.timeout)?,
            on_failure: hook.on_failure,
            chooses: plan.balance == Balance::Off,
            remotes: remotes.len(),
            common,
            tally: former.map_or_else(Arc::default, |former| Arc::clone(&former.tally)),
        }))
    }

    /// What was counted, for those who ask.
    pub fn json(&self) -> Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "pending": count(&self.tally.pending),
            "allowed": count(&self.tally.allowed),
            "refused": count(&self.tally.refused),
            "failed": count(&self.tally.failed),
        })
    }

    fn question(&self, walk: &Walk, seen: &[u8], left: Option<Duration>) -> String {
        let flow = &walk.flow;
        let origin = flow.origin();
        let own = json!({
            "id": flow.id,
            "group": flow.endpoint.shared.group.id,
            "client": origin,
            "via": (origin != flow.client).then_some(flow.client),
            "listener": flow.endpoint.shared.tcp_addr,
            "timeout": left.map(|left| left.as_secs_f64()),
        })
        .to_string();
        let mut text = String::with_capacity(self.common.len() + own.len() + 2 * seen.len() + 24);
        text.push_str(&self.common);
        text.push(',');
        text.push_str(own.trim_start_matches('{').trim_end_matches('}'));
        text.push_str(r#","first_bytes":""#);
        for byte in seen {
            // Writing to a string doesn't fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push_str("\"}");
        text
    }
}

/// Asks the owner about the flow, if the plan says so: where it is to go, if the owner chose that.
pub async fn decide(walk: &Walk, client: &Io) -> Result<Option<Aim>, Stop> {
    let Some(hook) = &walk.flow.route.hook else {
        return Ok(None);
    };
    let one = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    walk.flow.state.set(State::Deciding);
    let verdict = {
        let _pending = Pending::new(&hook.tally);
        ask(walk, client, hook).await?
    };
    match verdict {
        Verdict::Remote { index } if index >= hook.remotes as u64 => {
            one(&hook.tally.refused);
            Err(Stop::new(
                Reason::HookRefused,
                format!("the hook chose remote {index} of {}", hook.remotes),
            ))
        }
        Verdict::Refuse { reason } => {
            one(&hook.tally.refused);
            Err(Stop::new(Reason::HookRefused, short(reason)))
        }
        Verdict::Remote { index } => {
            one(&hook.tally.allowed);
            Ok(hook.chooses.then_some(Aim::Target(index as usize)))
        }
        Verdict::Allow => {
            one(&hook.tally.allowed);
            Ok(None)
        }
        Verdict::Failed { reason } => {
            one(&hook.tally.failed);
            fail(walk, hook, short(reason))
        }
    }
}

/// What the plan has chosen for flows about which there is no decision.
fn fail(walk: &Walk, hook: &Hook, why: String) -> Result<Option<Aim>, Stop> {
    if hook.on_failure == OnFailure::Refuse {
        return Err(Stop::new(Reason::HookFailed, why));
    }
    let flow = &walk.flow;
    let endpoint = &flow.endpoint.shared;
    walk.worker.shared.events.notice(
        endpoint.group.id,
        &endpoint.id,
        Reason::HookFailed.name(),
        format!("{} goes on without a decision: {why}", flow.origin()),
    );
    Ok(None)
}

async fn ask(walk: &Walk, client: &Io, hook: &Hook) -> Result<Verdict, Stop> {
    let Walk { worker, flow, task } = walk;
    if hook.tally.pending.load(Ordering::Relaxed) > MOST_PENDING {
        return Ok(Verdict::failed("too many decisions are pending"));
    }
    let began = worker.now();
    let until = hook.timeout.map(|limit| began + limit);
    // A client that says less than is asked for leaves half of the time for the decision.
    let patience = hook.timeout.map(|limit| began + limit / 2);
    let seen = first_bytes(walk, client, hook.first_bytes, patience).await?;
    let left = until.map(|until| until.saturating_duration_since(worker.now()));
    let question = hook.question(walk, &seen, left);
    drop(seen);
    let waiting = worker.deciding.wait(flow.id, *task);
    if !worker.shared.questions.put(question, until) {
        return Ok(Verdict::failed("nobody fetches the questions"));
    }
    let mut deadline = Sleep::new(worker, until);
    poll_fn(|_| {
        if client.is(ready::ERROR) {
            return Poll::Ready(Err(Stop::bare(Reason::ClientReset)));
        }
        if let Some(verdict) = waiting.take() {
            return Poll::Ready(Ok(verdict));
        }
        if deadline.is_due() {
            return Poll::Ready(Ok(Verdict::failed("the hook took too long")));
        }
        Poll::Pending
    })
    .await
}

/// What the client says first, up to `most` bytes; less if it says no more in time.
async fn first_bytes(
    walk: &Walk,
    client: &Io,
    most: usize,
    until: Option<Instant>,
) -> Result<Vec<u8>, Stop> {
    if most == 0 {
        return Ok(Vec::new());
    }
    overhear(walk, client, most, until, |seen, last| {
        last.then(|| seen.to_vec())
    })
    .await
}

fn short(mut reason: String) -> String {
    let mut end = LONGEST_REASON.min(reason.len());
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

impl Verdict {
    fn failed(why: &str) -> Self {
        Self::Failed {
            reason: why.to_owned(),
        }
    }
}

/// Counts a flow among those that wait, for as long as it does.
struct Pending<'a>(&'a Tally);

impl<'a> Pending<'a> {
    fn new(tally: &'a Tally) -> Self {
        tally.pending.fetch_add(1, Ordering::Relaxed);
        Self(tally)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The flows of one worker that wait for an answer.
#[derive(Default)]
pub struct Deciding(RefCell<HashMap<u64, (TaskId, Option<Verdict>)>>);

/// One of them. Dropped, it waits no more, and an answer finds nobody.
struct Waiting<'a> {
    all: &'a Deciding,
    flow: u64,
}

impl Deciding {
    fn wait(&self, flow: u64, task: TaskId) -> Waiting<'_> {
        self.0.borrow_mut().insert(flow, (task, None));
        Waiting { all: self, flow }
    }

    /// Gives the flow its answer, if it still waits.
    pub fn settle(&self, worker: &Worker, answer: Answer) {
        if let Some((task, verdict)) = self.0.borrow_mut().get_mut(&answer.id) {
            *verdict = Some(answer.verdict);
            worker.tasks.wake(*task);
        }
    }
}

impl Waiting<'_> {
    fn take(&self) -> Option<Verdict> {
        self.all.0.borrow_mut().get_mut(&self.flow)?.1.take()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.0.borrow_mut().remove(&self.flow);
    }
}

impl Answer {
    /// The worker that carries the flow.
    pub fn worker(&self) -> usize {
        (self.id >> 40) as usize
    }
}

/// Questions on their way to the owner of the engine.
#[derive(Default)]
pub struct Questions {
    queue: Mutex<Queue>,
    /// Readable while questions wait. Not there before somebody listens.
    bell: OnceLock<Fd>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(String, Option<Instant>)>,
    bytes: usize,
}

impl Questions {
    /// From now on questions are asked: a descriptor that is readable while some wait.
    pub fn listen(&self) -> io::Result<RawFd> {
        let _queue = self.lock();
        if self.bell.get().is_none() {
            // SAFETY: plain arguments.
            let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            let _ = self.bell.set(Fd::own(check(raw)?));
        }
        Ok(self.bell.get().map_or(-1, AsRawFd::as_raw_fd))
    }

    /// False when it can't be asked.
    fn put(&self, question: String, until: Option<Instant>) -> bool {
        let Some(bell) = self.bell.get() else {
            return false;
        };
        let mut queue = self.lock();
        if queue.bytes + question.len() > MOST_QUEUED {
            return false;
        }
        queue.bytes += question.len();
        queue.waiting.push_back((question, until));
        if queue.waiting.len() == 1 {
            let one: u64 = 1;
            // SAFETY: eventfd takes 8 bytes.
            unsafe { libc::write(bell.as_raw_fd(), (&raw const one).cast(), 8) };
        }
        true
    }

    /// Some of those that wait. What nobody waits for any more is left out.
    pub fn take(&self) -> Vec<String> {
        let now = Instant::now();
        let mut queue = self.lock();
        let count = queue.waiting.len().min(BATCH);
        let batch: Vec<_> = queue.waiting.drain(..count).collect();
        queue.bytes -= batch.iter().map(|(text, _)| text.len()).sum::<usize>();
        if queue.waiting.is_empty()
            && let Some(bell) = self.bell.get()
        {
            let mut count: u64 = 0;
            // SAFETY: eventfd gives 8 bytes.
            unsafe { libc::read(bell.as_raw_fd(), (&raw mut count).cast(), 8) };
        }
        drop(queue);
        batch
            .into_iter()
            .filter(|(_, until)| until.is_none_or(|until| now < until))
            .map(|(text, _)| text)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> Option<(usize, Verdict)> {
        let answer: Answer = serde_json::from_str(text).ok()?;
        Some((answer.worker(), answer.verdict))
    }

    #[test]
    fn answers_are_read_strictly() {
        assert_eq!(
            verdict(r#"{"id":1099511627777,"answer":"allow"}"#),
            Some((1, Verdict::Allow))
        );
        assert_eq!(
            verdict(r#"{"id":1,"answer":"remote","index":2}"#),
            Some((0, Verdict::Remote { index: 2 }))
        );
        for wrong in [
            r#"{"id":1,"answer":"remote","index":-1}"#,
            r#"{"id":1,"answer":"remote"}"#,
            r#"{"id":1,"answer":"yes"}"#,
            r#"{"answer":"allow"}"#,
        ] {
            assert_eq!(verdict(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(short("no".to_owned()), "no");
        let long = short("\u{20ac}".repeat(1_000));
        assert!(long.len() <= LONGEST_REASON && long.len() > LONGEST_REASON - 4);
        assert!(long.chars().all(|each| each == '\u{20ac}'));
    }

    #[test]
    fn questions_wait_within_bounds_and_in_order() {
        let questions = Questions::default();
        assert!(!questions.put("nobody listens".to_owned(), None));
        assert!(questions.listen().expect("eventfd") >= 0);
        let large = "x".repeat(MOST_QUEUED / 2);
        assert!(questions.put(large.clone(), None));
        assert!(questions.put("late".to_owned(), Some(Instant::now())));
        assert!(!questions.put(large.clone(), None), "more than it holds");
        assert_eq!(questions.take(), std::slice::from_ref(&large));
        assert!(questions.put(large, None));
        assert!(questions.take().len() == 1 && questions.take().is_empty());
        for number in 0..BATCH + 1 {
            assert!(questions.put(number.to_string(), None));
        }
        assert_eq!(questions.take().len(), BATCH);
        assert_eq!(questions.take(), [BATCH.to_string()]);
    }
}

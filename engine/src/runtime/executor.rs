//! Tasks of one worker: futures that only this thread polls.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use slab::Slab;

use super::inbox;

/// Names a task for as long as it lives; a later task in the same place has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskId {
    index: u32,
    generation: u32,
}

const GENERATIONS: u32 = 1 << 20;

struct Task {
    generation: u32,
    queued: bool,
    /// Absent while the task is being polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

#[derive(Default)]
pub struct Executor {
    tasks: RefCell<Slab<Task>>,
    ready: RefCell<VecDeque<TaskId>>,
    current: Cell<Option<TaskId>>,
    generation: Cell<u32>,
}

impl Executor {
    /// The name that the next spawned task will have is given to `make`, so that what the future
    /// owns can be registered under it.
    pub fn spawn<F, M>(&self, make: M) -> TaskId
    where
        M: FnOnce(TaskId) -> F,
        F: Future<Output = ()> + 'static,
    {
        let generation = (self.generation.get() + 1) % GENERATIONS;
        self.generation.set(generation);
        let index = self.tasks.borrow_mut().insert(Task {
            generation,
            queued: false,
            future: None,
        });
        let id = TaskId {
            index: index as u32,
            generation,
        };
        let future = Box::pin(make(id));
        self.tasks.borrow_mut()[index].future = Some(future);
        self.wake(id);
        id
    }

    /// The task being polled.
    pub fn current(&self) -> Option<TaskId> {
        self.current.get()
    }

    /// Has the task polled soon; once, however often it is woken before.
    pub fn wake(&self, id: TaskId) {
        if let Some(task) = self.tasks.borrow_mut().get_mut(id.index as usize)
            && task.generation == id.generation
            && !task.queued
        {
            task.queued = true;
            self.ready.borrow_mut().push_back(id);
        }
    }

    /// Has the task that is being polled polled again, after others had their turn.
    pub fn wake_current(&self) {
        if let Some(id) = self.current.get() {
            self.wake(id);
        }
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty()
    }

    /// Polls what is ready now; what becomes ready meanwhile waits for the next call.
    pub fn run_ready(&self, worker: usize) {
        let batch = self.ready.borrow().len();
        for _ in 0..batch {
            let Some(id) = self.ready.borrow_mut().pop_front() else {
                return;
            };
            self.poll(id, worker);
        }
    }

    fn poll(&self, id: TaskId, worker: usize) {
        let index = id.index as usize;
        let mut future = {
            let mut tasks = self.tasks.borrow_mut();
            let Some(task) = tasks.get_mut(index) else {
                return;
            };
            if task.generation != id.generation {
                return;
            }
            task.queued = false;
            let Some(future) = task.future.take() else {
                return;
            };
            future
        };
        let waker = waker(worker, id);
        self.current.set(Some(id));
        let mut context = Context::from_waker(&waker);
        // A bug of ours ends one flow, not all that the worker carries.
        let outcome = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)))
            .unwrap_or(Poll::Ready(()));
        match outcome {
            Poll::Pending => {
                if let Some(task) = self.tasks.borrow_mut().get_mut(index) {
                    task.future = Some(future);
                }
            }
            Poll::Ready(()) => {
                // Dropped before its place is given to another task, and outside the borrow:
                // what it owns may wake or spawn others.
                drop(future);
                self.tasks.borrow_mut().remove(index);
            }
        }
        self.current.set(None);
    }

    /// Drops every task, when the worker ends.
    pub fn clear(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        self.ready.borrow_mut().clear();
    }
}

// A waker is a number: worker (12 bits), generation (20), index (32). Waking from the worker's own
// thread queues the task; from another thread it goes through the worker's inbox. A stale number
// wakes nothing, or wakes a task without need, which every future here tolerates.

fn waker(worker: usize, id: TaskId) -> Waker {
    let number = (worker << 52) | ((id.generation as usize) << 32) | id.index as usize;
    // SAFETY: the table's functions treat the pointer as a number and never follow it, so they
    // hold for any thread and any length of life.
    unsafe { Waker::from_raw(RawWaker::new(number as *const (), &TABLE)) }
}

static TABLE: RawWakerVTable = RawWakerVTable::new(
    |data| RawWaker::new(data, &TABLE),
    wake_number,
    wake_number,
    |_| {},
);

fn wake_number(data: *const ()) {
    let number = data as usize;
    let id = TaskId {
        index: number as u32,
        generation: (number >> 32) as u32 & (GENERATIONS - 1),
    };
    inbox::wake(number >> 52, id);
}

//! The threads of one build.
//!
//! A step that is executed has a thread of its own: what the runner does to it (namespaces, a parent-death signal)
//! concerns that thread for the whole step. Hashing and look-ups share a few threads that live as long as the build. What waits
//! for a network has a thread of its own too: a slow server must not hold up look-ups.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::time::Duration;

use kiln_core::Digest;

use crate::Finished;
use crate::place::Places;
use crate::task::{DigestTask, Fault, FetchTask, LookTask, Looked, RunTask, Tools};

/// Hands tasks to threads and takes their results.
pub(crate) struct Crew<'scope, 'env, 'g, E> {
    scope: &'scope Scope<'scope, 'env>,
    pub(crate) tools: &'env Tools<'env, E>,
    desk: &'env Desk<'g>,
    send: Sender<Done<E>>,
    receive: Receiver<Done<E>>,
    clerks: usize,
    most_clerks: usize,
    /// Digests, fetches and look-ups given and not returned.
    asked: usize,
    /// Steps that have begun and not ended.
    running: usize,
    places: Places,
}

/// A task that returned.
pub(crate) enum Done<E> {
    Digested {
        content: usize,
        asker: usize,
        result: Result<Digest, Fault<E>>,
    },
    /// A digest takes long. The task has not returned.
    Late {
        content: usize,
    },
    Fetched {
        source: usize,
        asker: usize,
        result: Result<(), Fault<E>>,
    },
    Looked {
        node: usize,
        result: Result<Looked, Fault<E>>,
    },
    Ran {
        node: usize,
        result: Result<Finished, Fault<E>>,
        duration: Duration,
        /// Whether it had a place at its end.
        placed: bool,
    },
    /// A step that has not returned lets another one have its place.
    Left,
    /// The build was cancelled before the task began.
    Skipped,
    /// The worker or the index panicked.
    Panicked {
        /// Whether it was a step, and had a place.
        ran: Option<bool>,
        payload: Box<dyn Any + Send>,
    },
}

/// Anything but a step.
pub(crate) enum Question<'g> {
    Digest(DigestTask<'g>),
    Fetch(FetchTask<'g>),
    Look(LookTask<'g>),
}

/// Where short tasks wait for a clerk.
pub(crate) struct Desk<'g> {
    queue: Mutex<Queue<'g>>,
    bell: Condvar,
}

struct Queue<'g> {
    questions: VecDeque<Question<'g>>,
    closed: bool,
}

impl<'g> Desk<'g> {
    pub(crate) fn new() -> Self {
        let queue = Queue { questions: VecDeque::new(), closed: false };
        Self { queue: Mutex::new(queue), bell: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<'g>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Question<'g>> {
        let queue = self.lock();
        let waiting = |queue: &mut Queue<'g>| queue.questions.is_empty() && !queue.closed;
        let mut queue = self.bell.wait_while(queue, waiting).unwrap_or_else(PoisonError::into_inner);
        queue.questions.pop_front()
    }
}

/// Bytes of stack for a thread that executes or hashes: a worker's walk down a tree of two thousand levels, the most that
/// a path has room for, must not end in a signal. Only what is used costs memory.
const STACK: usize = 16 << 20;

impl<'scope, 'env, 'g: 'env, E: Display + Send> Crew<'scope, 'env, 'g, E> {
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        tools: &'env Tools<'env, E>,
        desk: &'env Desk<'g>,
        jobs: usize,
    ) -> Self
    where
        E: 'scope,
    {
        let (send, receive) = channel();
        let (most_clerks, places) = (jobs.max(2), Places::new(jobs.max(1)));
        Self { scope, tools, desk, send, receive, clerks: 0, most_clerks, asked: 0, running: 0, places }
    }

    /// Hands over a task. Fails if there is no thread at all for it.
    pub(crate) fn ask(&mut self, question: Question<'g>) -> io::Result<()> {
        if question.is_remote() {
            return self.send_out(question);
        }
        if self.asked >= self.clerks && self.clerks < self.most_clerks {
            match self.hire() {
                Ok(()) => self.clerks += 1,
                Err(error) if self.clerks == 0 => return Err(error),
                Err(_) => self.most_clerks = self.clerks,
            }
        }
        self.asked += 1;
        self.desk.lock().questions.push_back(question);
        self.desk.bell.notify_one();
        Ok(())
    }

    /// Asks on a thread of its own.
    fn send_out(&mut self, question: Question<'g>) -> io::Result<()> {
        let (tools, send) = (self.tools, self.send.clone());
        let work = move || {
            // The receiver is gone only if the owner panicked.
            let _ = send.send(answer_or_panic(tools, question, &send));
        };
        Builder::new().name("fetch".to_owned()).spawn_scoped(self.scope, work)?;
        self.asked += 1;
        Ok(())
    }

    /// Whether there is a place for another step.
    pub(crate) fn has_place(&self) -> bool {
        self.places.is_free()
    }

    /// Runs a step on a thread of its own, in a place.
    pub(crate) fn run(&mut self, task: RunTask<'g>) -> io::Result<()> {
        let (tools, send) = (self.tools, self.send.clone());
        let tell = self.send.clone();
        let place = self.places.take(move || drop(tell.send(Done::Left)));
        let work = move || {
            let node = task.node;
            let ran = catch_unwind(AssertUnwindSafe(|| tools.run(&task, &place)));
            let placed = place.end();
            let done = match ran {
                Ok((result, duration)) => Done::Ran { node, result, duration, placed },
                Err(payload) => Done::Panicked { ran: Some(placed), payload },
            };
            // The receiver is gone only if the owner panicked.
            let _ = send.send(done);
        };
        Builder::new().name("step".to_owned()).stack_size(STACK).spawn_scoped(self.scope, work)?;
        self.running += 1;
        Ok(())
    }

    /// Waits for the next task to return; none if there is none.
    pub(crate) fn next(&mut self) -> Option<Done<E>> {
        if self.asked + self.running == 0 {
            return None;
        }
        let done = self.receive.recv().ok()?;
        match done {
            Done::Ran { placed, .. } | Done::Panicked { ran: Some(placed), .. } => {
                self.running -= 1;
                if placed {
                    self.places.free();
                }
            }
            Done::Digested { .. }
            | Done::Fetched { .. }
            | Done::Looked { .. }
            | Done::Skipped
            | Done::Panicked { .. } => self.asked -= 1,
            Done::Late { .. } | Done::Left => {}
        }
        Some(done)
    }

    fn hire(&self) -> io::Result<()> {
        let (tools, desk, send) = (self.tools, self.desk, self.send.clone());
        let work = move || {
            while let Some(question) = desk.next() {
                if send.send(answer_or_panic(tools, question, &send)).is_err() {
                    return;
                }
            }
        };
        Builder::new().name("look".to_owned()).stack_size(STACK).spawn_scoped(self.scope, work)?;
        Ok(())
    }
}

impl<E> Drop for Crew<'_, '_, '_, E> {
    /// Ends the build's threads, also when the owner panics: the scope waits for them.
    fn drop(&mut self) {
        self.tools.cancel.cancel();
        self.desk.lock().closed = true;
        self.desk.bell.notify_all();
    }
}

impl Question<'_> {
    /// Whether answering may take as long as a network likes.
    fn is_remote(&self) -> bool {
        match self {
            Self::Digest(task) => task.op.is_remote(),
            Self::Fetch(_) => true,
            Self::Look(_) => false,
        }
    }
}

fn answer_or_panic<E: Display + Send>(
    tools: &Tools<'_, E>,
    question: Question<'_>,
    send: &Sender<Done<E>>,
) -> Done<E> {
    let answered = catch_unwind(AssertUnwindSafe(|| answer(tools, question, send)));
    answered.unwrap_or_else(|payload| Done::Panicked { ran: None, payload })
}

fn answer<E: Display + Send>(
    tools: &Tools<'_, E>,
    question: Question<'_>,
    send: &Sender<Done<E>>,
) -> Done<E> {
    if tools.cancel.is_cancelled() {
        return Done::Skipped;
    }
    match question {
        Question::Digest(task) => {
            let late = || drop(send.send(Done::Late { content: task.content }));
            Done::Digested { content: task.content, asker: task.asker, result: tools.digest(&task, &late) }
        }
        Question::Fetch(task) => {
            Done::Fetched { source: task.source, asker: task.asker, result: tools.fetch(&task) }
        }
        Question::Look(task) => Done::Looked { node: task.node, result: tools.look(&task) },
    }
}

//! The processes that train the runs of a comparison, side by side.
//!
//! Threads and CPU kernels are set up once in a process, and a run that is to be the same alone and
//! beside others must have both for itself. A process also tells how much memory its run took.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::worker::{Event, Order};

/// How long to wait for a message before looking for a request to stop.
const INTERVAL: Duration = Duration::from_millis(50);

/// What comes from a worker.
pub(super) enum Message {
    /// It reports.
    Event(Box<Event>),
    /// It has ended.
    Ended(io::Result<ExitStatus>),
}

struct Worker {
    /// Index of its run.
    run: usize,
    child: Child,
    /// Its end asks the worker to stop.
    orders: Option<ChildStdin>,
}

/// The processes that are running. They are asked to stop and waited for on drop.
pub(super) struct Workers {
    workers: Vec<Worker>,
    sender: Sender<(usize, Option<Event>)>,
    receiver: Receiver<(usize, Option<Event>)>,
}

impl Workers {
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel();
        Self { workers: Vec::new(), sender, receiver }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Starts the process of a run.
    pub fn start(&mut self, run: usize, mut command: Command, order: &Order) -> io::Result<()> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take();
        let reports = child.stdout.take();
        self.workers.push(Worker { run, child, orders });
        let sender = self.sender.clone();
        thread::spawn(move || {
            for line in reports.into_iter().flat_map(|reports| BufReader::new(reports).lines()) {
                // A pipe that cannot be read is as good as closed.
                let Ok(line) = line else { break };
                let event = serde_json::from_str(&line);
                let event = event.unwrap_or(Event::Note(line));
                sender.send((run, Some(event))).ok();
            }
            sender.send((run, None)).ok();
        });
        // Plain data always serialises.
        let order = serde_json::to_string(order).expect("an order is plain data") + "\n";
        match self.workers.last_mut().and_then(|worker| worker.orders.as_mut()) {
            // A process that has ended already is told by its messages.
            Some(orders) => orders.write_all(order.as_bytes()).or(Ok(())),
            None => Ok(()),
        }
    }

    /// The next message and the index of its run; `None` if there is none for a while.
    pub fn next(&mut self) -> Option<(usize, Message)> {
        let (run, event) = match self.receiver.recv_timeout(INTERVAL) {
            Ok(message) => message,
            // This holds a sender.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        };
        let message = match event {
            Some(event) => Message::Event(Box::new(event)),
            None => {
                let at = self.workers.iter().position(|worker| worker.run == run)?;
                Message::Ended(self.workers.remove(at).child.wait())
            }
        };
        Some((run, message))
    }

    /// Asks all to save and end.
    pub fn stop(&mut self) {
        self.workers.iter_mut().for_each(|worker| worker.orders = None);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
        self.workers.iter_mut().for_each(|worker| drop(worker.child.wait()));
    }
}

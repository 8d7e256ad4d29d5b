//! The stand-in for MPI: ranks that are threads of a test.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Exchange, Ranks};

/// Where a rank sends and receives; a message is bytes.
struct Threads {
    rank: usize,
    out: Vec<Sender<Vec<u8>>>,
    into: Vec<Mutex<Receiver<Vec<u8>>>>,
    hosts: Vec<String>,
}

impl Exchange for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.out.len()
    }

    fn host(&self, rank: usize) -> &str {
        &self.hosts[rank]
    }

    fn bytes(&self, out: &[&[u8]], into: &mut [&mut [u8]]) {
        for (rank, bytes) in out.iter().enumerate().filter(|(rank, _)| *rank != self.rank) {
            self.out[rank].send(bytes.to_vec()).expect("the other rank lives");
        }
        for (rank, bytes) in into.iter_mut().enumerate().filter(|(rank, _)| *rank != self.rank) {
            let received = self.into[rank].lock().unwrap().recv().expect("the other rank lives");
            bytes.copy_from_slice(&received);
        }
    }

    fn floats(&self, out: &[&[f32]], into: &mut [&mut [f32]]) {
        self.swap(out, into, f32::to_le_bytes, f32::from_le_bytes);
    }

    fn doubles(&self, out: &[&[f64]], into: &mut [&mut [f64]]) {
        self.swap(out, into, f64::to_le_bytes, f64::from_le_bytes);
    }
}

impl Threads {
    fn swap<T: Copy, const N: usize>(
        &self,
        out: &[&[T]],
        into: &mut [&mut [T]],
        to: fn(T) -> [u8; N],
        from: fn([u8; N]) -> T,
    ) {
        let bytes = |values: &[T]| values.iter().flat_map(|v| to(*v)).collect::<Vec<_>>();
        let out: Vec<_> = out.iter().map(|values| bytes(values)).collect();
        let mut received: Vec<_> = into.iter().map(|values| vec![0; values.len() * N]).collect();
        let out: Vec<&[u8]> = out.iter().map(|bytes| &bytes[..]).collect();
        let mut places: Vec<&mut [u8]> = received.iter_mut().map(|bytes| &mut bytes[..]).collect();
        self.bytes(&out, &mut places);
        for (rank, values) in into.iter_mut().enumerate().filter(|(rank, _)| *rank != self.rank) {
            for (value, bytes) in values.iter_mut().zip(received[rank].chunks_exact(N)) {
                *value = from(bytes.try_into().expect("as many bytes"));
            }
        }
    }
}

/// Ranks for as many threads.
pub fn threads(size: usize) -> Vec<Ranks> {
    let mut out: Vec<Vec<_>> = (0..size).map(|_| Vec::new()).collect();
    let mut into: Vec<Vec<_>> = (0..size).map(|_| Vec::new()).collect();
    for senders in &mut out {
        for receivers in &mut into {
            let (sender, receiver) = channel();
            senders.push(sender);
            receivers.push(Mutex::new(receiver));
        }
    }
    let hosts: Vec<_> = (0..size).map(|rank| format!("host{rank}")).collect();
    let ranks = out.into_iter().zip(into).enumerate().map(|(rank, (out, into))| {
        Ranks::new(Arc::new(Threads { rank, out, into, hosts: hosts.clone() }))
    });
    ranks.collect()
}

/// Runs `work` on ranks, each a thread; what each returns, in their order.
pub fn on_ranks<T: Send>(size: usize, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            threads(size).into_iter().map(|ranks| scope.spawn(move || work(ranks))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

//! How the end of a piece of work is asked for: a handle for who asks, a signal for who works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// How urgent the end is. A later wish can only be more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// A program may clean up for some seconds before it is killed.
    Graceful,
    /// A program is killed at once.
    Now,
}

const GRACEFUL: u8 = 1;
const NOW: u8 = 2;

/// What a handle and its signals share. There is one for each task, so it is one allocation and small.
#[derive(Debug, Default)]
struct Wish {
    /// 0 until something is asked for. It only grows.
    asked: AtomicU8,
    grown: Notify,
}

/// Asks for the end of one piece of work.
#[derive(Clone, Debug)]
pub struct StopHandle(Arc<Wish>);

impl StopHandle {
    /// Asks for the end. A wish that is not more urgent than the one before changes nothing.
    pub fn stop(&self, how: Stop) {
        let how = match how {
            Stop::Graceful => GRACEFUL,
            Stop::Now => NOW,
        };
        if self.0.asked.fetch_max(how, Ordering::AcqRel) < how {
            self.0.grown.notify_waiters();
        }
    }
}

/// Tells a piece of work that its end is asked for.
#[derive(Clone, Debug)]
pub struct StopSignal(Arc<Wish>);

impl StopSignal {
    /// A signal that never comes, for work that nobody stops.
    pub fn never() -> Self {
        stop_channel().1
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Option<Stop> {
        match self.0.asked.load(Ordering::Acquire) {
            0 => None,
            GRACEFUL => Some(Stop::Graceful),
            _ => Some(Stop::Now),
        }
    }

    /// Waits until an end at least this urgent is asked for, and says how urgent it is. Waits for ever if nobody can
    /// ask any more. Nothing is lost if the wait is given up and begun again.
    pub async fn wait(&mut self, at_least: Stop) -> Stop {
        loop {
            // It hears every wish from here on, polled or not; only then is it safe to look at the ones before.
            let grown = self.0.grown.notified();
            match self.asked() {
                Some(how) if how >= at_least => return how,
                Some(_) | None => grown.await,
            }
        }
    }
}

/// A handle and its signal.
pub fn stop_channel() -> (StopHandle, StopSignal) {
    let wish = Arc::new(Wish::default());
    (StopHandle(wish.clone()), StopSignal(wish))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_wish_only_grows_more_urgent() {
        let (handle, mut signal) = stop_channel();
        assert_eq!(signal.asked(), None);
        handle.stop(Stop::Graceful);
        assert_eq!(signal.wait(Stop::Graceful).await, Stop::Graceful);
        handle.stop(Stop::Now);
        assert_eq!(signal.wait(Stop::Graceful).await, Stop::Now);
        handle.stop(Stop::Graceful);
        assert_eq!(signal.asked(), Some(Stop::Now));
        drop(handle);
        assert_eq!(signal.wait(Stop::Now).await, Stop::Now);
    }

    #[tokio::test]
    async fn nobody_left_to_ask_means_never() {
        let mut signal = StopSignal::never();
        let wait = tokio::time::timeout(Duration::from_millis(20), signal.wait(Stop::Graceful));
        assert!(wait.await.is_err());
    }

    #[test]
    fn a_wait_that_is_given_up_loses_nothing_and_a_mild_wish_does_not_end_a_hard_wait() {
        let (handle, signal) = stop_channel();
        let (mut one, mut other) = (signal.clone(), signal);
        let mut context = Context::from_waker(Waker::noop());
        let mut hard = pin!(one.wait(Stop::Now));
        assert_eq!(hard.as_mut().poll(&mut context), Poll::Pending);
        {
            let mut given_up = pin!(other.wait(Stop::Graceful));
            assert_eq!(given_up.as_mut().poll(&mut context), Poll::Pending);
            handle.stop(Stop::Graceful);
        }
        assert_eq!(pin!(other.wait(Stop::Graceful)).poll(&mut context), Poll::Ready(Stop::Graceful));
        assert_eq!(hard.as_mut().poll(&mut context), Poll::Pending);
        handle.stop(Stop::Now);
        assert_eq!(hard.as_mut().poll(&mut context), Poll::Ready(Stop::Now));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wish_is_lost_however_waiting_and_asking_meet() {
        for _ in 0..2_000 {
            let (handle, mut signal) = stop_channel();
            let mut other = signal.clone();
            let waits = tokio::spawn(async move { signal.wait(Stop::Now).await });
            let asks = tokio::spawn(async move {
                handle.stop(Stop::Graceful);
                handle.stop(Stop::Now);
            });
            let end = async { (waits.await.unwrap(), other.wait(Stop::Now).await, asks.await.unwrap()) };
            let end = tokio::time::timeout(Duration::from_secs(10), end).await;
            assert_eq!(end, Ok((Stop::Now, Stop::Now, ())));
        }
    }
}

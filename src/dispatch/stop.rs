//! How the end of a piece of work is asked for: a handle for who asks, a signal for who works.

use tokio::sync::watch;

/// How urgent the end is. A later wish can only be more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// A program may clean up for some seconds before it is killed.
    Graceful,
    /// A program is killed at once.
    Now,
}

/// Asks for the end of one piece of work.
#[derive(Clone, Debug)]
pub struct StopHandle(watch::Sender<Option<Stop>>);

impl StopHandle {
    /// Asks for the end. A wish that is not more urgent than the one before changes nothing.
    pub fn stop(&self, how: Stop) {
        self.0.send_if_modified(|asked| {
            let urgent = *asked < Some(how);
            if urgent {
                *asked = Some(how);
            }
            urgent
        });
    }
}

/// Tells a piece of work that its end is asked for.
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<Option<Stop>>);

impl StopSignal {
    /// A signal that never comes, for work that nobody stops.
    pub fn never() -> Self {
        stop_channel().1
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Option<Stop> {
        *self.0.borrow()
    }

    /// Waits until an end at least this urgent is asked for, and says how urgent it is. Waits for ever if nobody can
    /// ask any more. Nothing is lost if the wait is given up and begun again.
    pub async fn wait(&mut self, at_least: Stop) -> Stop {
        let how = match self.0.wait_for(|asked| *asked >= Some(at_least)).await {
            Ok(asked) => *asked,
            Err(_) => None,
        };
        match how {
            Some(how) => how,
            None => std::future::pending().await,
        }
    }
}

/// A handle and its signal.
pub fn stop_channel() -> (StopHandle, StopSignal) {
    let (sender, receiver) = watch::channel(None);
    (StopHandle(sender), StopSignal(receiver))
}

#[cfg(test)]
mod tests {
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
        let wait = tokio::time::timeout(std::time::Duration::from_millis(20), signal.wait(Stop::Graceful));
        assert!(wait.await.is_err());
    }
}

//! `tol run --watch`: runs a pipeline again whenever one of its files changes.

use std::sync::Arc;

use super::args::RunArgs;
use super::context::Context;
use super::exit::{DONE, Failure, SIGNALLED};
use super::print::err;
use super::run::run_once;
use super::signals::Signals;
use crate::watch::Files;

/// Runs until somebody ends it.
pub fn run(arguments: &RunArgs) -> Result<u8, Failure> {
    let context = Context::around(Some(&arguments.file), &arguments.state)?;
    context.within(&arguments.file)?;
    let files = Arc::new(Files::new(&context.root));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    loop {
        let looked = files.look();
        match run_once(arguments, &context, &looked) {
            Ok(SIGNALLED) => return Ok(SIGNALLED),
            Ok(_) => {}
            Err(failure) => err!("error: {}", failure.message.trim_end()),
        }
        err!("waiting for a change of {}; Ctrl-C ends it", arguments.file.display());
        let (sender, changed) = tokio::sync::oneshot::channel();
        let waits = files.clone();
        let waiter = std::thread::Builder::new().name("files".to_owned()).spawn(move || {
            // Who waited may have gone.
            drop(sender.send(waits.wait(&looked)));
        })?;
        let told = runtime.block_on(async {
            let mut signals = Signals::listen()?;
            tokio::select! {
                told = changed => Ok::<_, Failure>(Some(told.unwrap_or_default())),
                _ = signals.next() => Ok(None),
            }
        })?;
        if told.is_none() {
            files.stop();
        }
        // The thread ends with the wait.
        let _ = waiter.join();
        match told {
            None => return Ok(DONE),
            Some(Some(polling)) => err!("files are read at intervals, because changes are not told: {polling}"),
            Some(None) => {}
        }
    }
}

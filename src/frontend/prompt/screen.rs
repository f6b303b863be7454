//! Where lines go while somebody types: above the line that is being edited.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustyline::ExternalPrinter;
use tokio::io::AsyncWrite;
use tokio::task::JoinHandle;

/// Writes whole chunks of lines through a printer. Writing to a terminal can block, so each write has a blocking thread
/// of the runtime to itself; the next one waits for it.
pub(super) struct Screen<P> {
    printer: Arc<Mutex<P>>,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl<P: ExternalPrinter + Send + 'static> Screen<P> {
    /// Lines go to this printer.
    pub(super) fn new(printer: P) -> Self {
        Self { printer: Arc::new(Mutex::new(printer)), writing: None }
    }

    fn poll_done(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(writing) = &mut self.writing else { return Poll::Ready(Ok(())) };
        let result = ready!(Pin::new(writing).poll(context));
        self.writing = None;
        Poll::Ready(result.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())))
    }
}

impl<P: ExternalPrinter + Send + 'static> AsyncWrite for Screen<P> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_done(context))?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // `Output` hands over whole lines of UTF-8.
        let text = String::from_utf8_lossy(bytes).into_owned();
        let printer = Arc::clone(&self.printer);
        self.writing = Some(tokio::task::spawn_blocking(move || print(&printer, text)));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_done(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

/// Above the edited line; where that fails, plainly.
fn print(printer: &Mutex<impl ExternalPrinter>, text: String) -> io::Result<()> {
    let printed = printer.lock().unwrap_or_else(PoisonError::into_inner).print(text.clone());
    if printed.is_ok() { Ok(()) } else { plain(text.as_bytes()) }
}

/// Straight to the terminal.
pub(super) fn plain(bytes: &[u8]) -> io::Result<()> {
    use io::Write as _;
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

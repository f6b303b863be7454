//! A process and the lines it has printed so far.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A running process. It is killed when the value is dropped.
pub(super) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    printed: Arc<Printed>,
}

#[derive(Default)]
struct Printed {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    /// Streams that have ended; there are two.
    ended: usize,
}

/// What a process that has ended left.
pub(super) struct Ended {
    /// Lines of stdout, then those of stderr with `! ` in front.
    pub(super) lines: Vec<String>,
    /// 128 and the signal's number for one that was ended by a signal.
    pub(super) status: i32,
}

impl Process {
    /// Start it in `folder`, with an environment that holds nothing of the one who tests but `PATH`, in front of which
    /// the program under test stands.
    pub(super) fn start(command: &mut Command, folder: &Path, seed: &str) -> Result<Self, String> {
        let program = Path::new(crate::harness::NODE);
        let mut path = program.parent().unwrap_or(program).as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut child = command
            .current_dir(folder)
            .env_clear()
            .env("PATH", path)
            .env("HOME", folder)
            .env("XDG_RUNTIME_DIR", folder)
            .env("USER", "you")
            .env("TZ", "UTC")
            .env("ALTHING_MDNS", "off")
            .env("ALTHING_HOST", "127.0.0.1")
            .env("SEED", seed)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("it cannot be started: {error}"))?;
        let printed = Arc::new(Printed::default());
        if let Some(stdout) = child.stdout.take() {
            printed.read(stdout, "");
        }
        if let Some(stderr) = child.stderr.take() {
            printed.read(stderr, "! ");
        }
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, printed })
    }

    /// Give it a line. A process that has ended does not read it, which its output will show.
    pub(super) fn type_line(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{line}\n").as_bytes());
            let _ = stdin.flush();
        }
    }

    /// Lines so far, from a place on, and whether more may come.
    pub(super) fn lines(&self, from: usize) -> (Vec<String>, bool) {
        let state = self.printed.lock();
        (state.lines.get(from..).unwrap_or_default().to_vec(), state.ended < 2)
    }

    /// Wait until there are more lines than so many, or it has ended; false when time ran out.
    pub(super) fn wait_beyond(&self, count: usize, deadline: Instant) -> bool {
        let mut state = self.printed.lock();
        while state.lines.len() <= count && state.ended < 2 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.printed.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Wait until it has ended by itself; its exit status.
    pub(super) fn status(&mut self, deadline: Instant) -> Result<i32, String> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(number(status)),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => return Err("it did not end".to_owned()),
                Err(error) => return Err(format!("its status is not known: {error}")),
            }
        }
    }

    /// Close its stdin and wait for its end and for everything it prints.
    pub(super) fn finish(mut self, deadline: Instant) -> Result<Ended, String> {
        self.stdin = None;
        let status = self.status(deadline)?;
        let mut count = 0;
        while self.wait_beyond(count, deadline) && self.lines(0).1 {
            count = self.lines(0).0.len();
        }
        let (mut lines, _) = self.lines(0);
        lines.sort_by_key(|line| line.starts_with("! "));
        Ok(Ended { lines, status })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Printed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(self: &Arc<Self>, stream: impl Read + Send + 'static, mark: &'static str) {
        let printed = Arc::clone(self);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
                let line = String::from_utf8_lossy(&bytes);
                let line = format!("{mark}{}", line.strip_suffix('\n').unwrap_or(&line));
                bytes.clear();
                // Neighbours are probed when their turn has come, which may be at any line.
                if line.contains("\"type\":\"probe\"") {
                    continue;
                }
                printed.lock().lines.push(line);
                printed.changed.notify_all();
            }
            printed.lock().ended += 1;
            printed.changed.notify_all();
        });
    }
}

fn number(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

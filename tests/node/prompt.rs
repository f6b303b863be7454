//! The prompt in a pseudo-terminal: what a person sees is read off the screen of a terminal emulator.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use althing::frontend::child::Child;
use rexpect::process::{PtyProcess, WaitStatus};

use crate::harness::{NODE, Net, TestResult, run_with_input};

/// How long something on the screen is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

const CTRL_C: &str = "\x03";

/// What the editor writes when it takes the terminal and when it has given it back.
const PASTE_ON: &[u8] = b"\x1b[?2004h";
const PASTE_OFF: &[u8] = b"\x1b[?2004l";
const CTRL_D: &str = "\x04";
const UP: &str = "\x1b[A";

pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// What came out of the pseudo-terminal, raw and as a screen.
struct Shown {
    screen: vt100::Parser,
    raw: Vec<u8>,
    ended: bool,
}

/// A node at a terminal of 24 rows and 100 columns.
pub(crate) struct Terminal {
    process: PtyProcess,
    dir: PathBuf,
    input: std::fs::File,
    shown: Arc<(Mutex<Shown>, Condvar)>,
}

impl Terminal {
    fn start(name: &str, dir: &Path, seeds: &[String], env: &[(&str, &str)]) -> Fallible<Self> {
        let mut args: Vec<&str> = vec!["--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--name", name];
        args.extend(seeds.iter().flat_map(|seed| ["--seed", seed.as_str()]));
        Self::start_with(dir, &args, env)
    }

    /// The program with these arguments, and with `--data-dir` for `dir`.
    pub(crate) fn start_with(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Fallible<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", "stty rows 24 cols 100 && exec \"$0\" \"$@\"", NODE]).args(args).arg("--data-dir").arg(dir);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").envs(env.iter().copied());
        let process = PtyProcess::new(command)?;
        let input = process.get_file_handle()?;
        let mut output = process.get_file_handle()?;
        let (rows, columns) = (size(24)?, size(100)?);
        let shown = Shown { screen: vt100::Parser::new(rows, columns, 0), raw: Vec::new(), ended: false };
        let shown = Arc::new((Mutex::new(shown), Condvar::new()));
        let filled = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = output.read(&mut buffer);
                let mut shown = lock(&filled.0);
                match read {
                    Ok(n) if n > 0 => {
                        let bytes = buffer.get(..n).unwrap_or_default();
                        shown.screen.process(bytes);
                        shown.raw.extend_from_slice(bytes);
                    }
                    _ => shown.ended = true,
                }
                filled.1.notify_all();
                if shown.ended {
                    return;
                }
            }
        });
        Ok(Self { process, dir: dir.to_owned(), input, shown })
    }

    pub(crate) fn type_in(&mut self, keys: &str) -> Fallible<()> {
        self.input.write_all(keys.as_bytes())?;
        Ok(self.input.flush()?)
    }

    /// Wait until the screen is so.
    fn until(&self, what: &str, fits: impl Fn(&Shown) -> bool) -> Fallible<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut shown = lock(&self.shown.0);
        loop {
            if fits(&shown) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || shown.ended {
                return Err(format!("not seen: {what}\n{}", shown.screen.screen().contents()).into());
            }
            shown = self.shown.1.wait_timeout(shown, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Wait until that stands on the screen.
    pub(crate) fn see(&self, text: &str) -> Fallible<()> {
        self.until(text, |shown| shown.screen.screen().contents().contains(text))
    }

    /// Wait until the row of the cursor is exactly that, the cursor behind it.
    fn line(&self, line: &str) -> Fallible<()> {
        self.until(&format!("the line '{line}'"), |shown| {
            let screen = shown.screen.screen();
            let (row, column) = screen.cursor_position();
            let text = screen.rows(0, 200).nth(row.into()).unwrap_or_default();
            text.trim_end() == line.trim_end() && usize::from(column) == line.chars().count()
        })
    }

    /// Wait until keys make signals again, because a command is executed: the editor says so to the terminal after it has
    /// given it back.
    fn given_back(&self) -> Fallible<()> {
        self.until("the terminal given back", |shown| {
            let last = |needle: &[u8]| shown.raw.windows(needle.len()).rposition(|window| window == needle);
            last(PASTE_OFF) > last(PASTE_ON)
        })
    }

    pub(crate) fn contents(&self) -> String {
        lock(&self.shown.0).screen.screen().contents()
    }

    fn raw(&self) -> Vec<u8> {
        lock(&self.shown.0).raw.clone()
    }

    /// The node's process id, as its lock file has it.
    fn pid(&self) -> Fallible<String> {
        Ok(std::fs::read_to_string(self.dir.join("lock"))?.trim().to_owned())
    }

    /// Wait for the end; the exit status.
    pub(crate) fn status(&self) -> Fallible<i32> {
        self.until("the end", |shown| shown.ended)
            .or_else(|error| if lock(&self.shown.0).ended { Ok(()) } else { Err(error) })?;
        match self.process.wait()? {
            WaitStatus::Exited(_, status) => Ok(status),
            other => Err(format!("{other:?}").into()),
        }
    }
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

fn size(number: u16) -> Fallible<NonZeroU16> {
    NonZeroU16::new(number).ok_or_else(|| "zero".into())
}

/// A node `ada` at a terminal, and a node `bob` that has met her.
async fn ada_and_bob(net: &Net, env: &[(&str, &str)]) -> Fallible<(Terminal, Child)> {
    let ada = Terminal::start("ada", &net.dir("ada"), &net.addresses, env)?;
    ada.line("ada> ")?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    bob.ask("wait peer ada").await?;
    ada.see("+ bob")?;
    Ok((ada, bob))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_typed_line_is_kept_when_a_message_comes() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let (mut ada, mut bob) = ada_and_bob(&net, &[]).await?;
    ada.type_in("msg bob half a li")?;
    ada.line("ada> msg bob half a li")?;
    bob.ask("msg ada are you there").await?;
    ada.see("are you there")?;
    ada.line("ada> msg bob half a li")?;
    let contents = ada.contents();
    let rows: Vec<&str> = contents.lines().collect();
    let message = rows.iter().position(|row| row.ends_with("(team althing): are you there"));
    let typed = rows.iter().position(|row| *row == "ada> msg bob half a li");
    assert!(message.is_some() && message < typed, "{contents}");
    assert_eq!(rows.iter().filter(|row| row.contains("half a li")).count(), 1, "{contents}");
    ada.type_in("ne\r")?;
    bob.wait("message", |event| event["text"] == "half a line").await?;
    ada.line("ada> ")?;
    // The count of unread messages waits until the line is empty again.
    ada.type_in("x")?;
    ada.line("ada> x")?;
    bob.ask("msg ada still there").await?;
    ada.see("still there")?;
    ada.line("ada> x")?;
    ada.type_in("\x7f")?;
    ada.line("ada (1)> ")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_do_not_disturb_a_half_typed_line() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = Terminal::start("ada", &net.dir("ada"), &net.addresses, &[("ALTHING_DEBUG", "true")])?;
    ada.line("ada> ")?;
    ada.type_in("half a li")?;
    ada.line("ada> half a li")?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    bob.deliver("ada", "among the log lines").await?;
    ada.see("among the log lines")?;
    ada.line("ada> half a li")?;
    let logged = ada.raw();
    assert!(logged.windows(6).any(|window| window == b" TRACE" || window == b"DEBUG "), "{}", ada.contents());
    assert_eq!(ada.contents().matches("half a li").count(), 1, "{}", ada.contents());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_messages_are_counted_and_ring_once_each() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let (mut ada, mut bob) = ada_and_bob(&net, &[]).await?;
    let bells = |shown: &Shown| shown.raw.iter().filter(|byte| **byte == 7).count();
    bob.ask("msg ada first").await?;
    ada.see("first")?;
    ada.line("ada (1)> ")?;
    ada.until("one bell", |shown| bells(shown) == 1)?;
    ada.type_in("chat bob\r")?;
    ada.line("ada → bob> ")?;
    bob.ask("msg ada second").await?;
    ada.see("second")?;
    ada.type_in("of course\r")?;
    bob.wait("message", |event| event["text"] == "of course").await?;
    ada.line("ada → bob> ")?;
    ada.type_in("exit\r")?;
    ada.line("ada> ")?;
    assert_eq!(bells(&lock(&ada.shown.0)), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tab_completes_commands_peers_settings_and_files() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let (mut ada, bob) = ada_and_bob(&net, &[]).await?;
    ada.type_in("hist\t")?;
    ada.line("ada> history ")?;
    ada.type_in("bo\t")?;
    ada.line("ada> history bob ")?;
    ada.type_in(CTRL_C)?;
    ada.line("ada> ")?;
    ada.type_in("config get fan\t")?;
    ada.line("ada> config get fanout ")?;
    ada.type_in(CTRL_C)?;
    ada.line("ada> ")?;
    std::fs::write(net.dir("ada").join("commands.txt"), "echo read from a file\n")?;
    ada.type_in(&format!("source {}/comm\t\r", net.dir("ada").display()))?;
    ada.see("read from a file")?;
    ada.line("ada> ")?;
    ada.type_in("@b\thow are you\r")?;
    bob.wait("message", |event| event["text"] == "how are you").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_remembered_over_a_restart_and_ctrl_d_leaves() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let mut ada = Terminal::start("ada", &net.dir("ada"), &[], &[])?;
    ada.line("ada> ")?;
    ada.type_in("echo one\\two 'x'\r")?;
    ada.see("\none\\two 'x'")?;
    ada.line("ada> ")?;
    ada.type_in(" echo a secret\r")?;
    ada.see("\na secret")?;
    ada.line("ada> ")?;
    ada.type_in(CTRL_D)?;
    assert_eq!(ada.status()?, 0);
    assert!(ada.contents().contains("Bye"), "{}", ada.contents());
    let file = net.dir("ada").join("prompt_history");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file)?.permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut ada = Terminal::start("ada", &net.dir("ada"), &[], &[])?;
    ada.line("ada> ")?;
    ada.type_in(UP)?;
    ada.line("ada> echo one\\two 'x'")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_clears_the_line_and_twice_leaves() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let mut ada = Terminal::start("ada", &net.dir("ada"), &[], &[])?;
    ada.line("ada> ")?;
    ada.type_in("quit")?;
    ada.line("ada> quit")?;
    ada.type_in(CTRL_C)?;
    ada.line("ada> ")?;
    // A command that takes its time ends, and the node goes on.
    ada.type_in("sleep 1000\r")?;
    ada.given_back()?;
    ada.type_in(CTRL_C)?;
    ada.see("(interrupted)")?;
    ada.line("ada> ")?;
    ada.type_in(CTRL_C)?;
    ada.see("(Ctrl-C once more leaves")?;
    ada.line("ada> ")?;
    ada.type_in(CTRL_C)?;
    assert_eq!(ada.status()?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_the_node_and_give_the_terminal_back() -> TestResult {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let net = Net::with_seeds(0).await?;
        let mut ada = Terminal::start("ada", &net.dir("ada"), &[], &[])?;
        ada.line("ada> ")?;
        ada.type_in("half")?;
        ada.line("ada> half")?;
        assert!(Command::new("kill").args([&format!("-{signal}"), &ada.pid()?]).status()?.success());
        assert_eq!(ada.status()?, status);
        assert!(ada.contents().contains("Bye"), "{}", ada.contents());
        // Pasting is switched back to what it was before.
        let raw = ada.raw();
        let last = |needle: &[u8]| raw.windows(needle.len()).rposition(|window| window == needle);
        assert!(last(PASTE_OFF) > last(PASTE_ON));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_width_is_taken_up() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let (mut ada, mut bob) = ada_and_bob(&net, &[]).await?;
    let typed = "msg bob a line of more than forty columns, which is a long one";
    ada.type_in(typed)?;
    ada.line(&format!("ada> {typed}"))?;
    lock(&ada.shown.0).screen.screen_mut().set_size(size(24)?, size(40)?);
    let tty: PathBuf = std::fs::read_link(format!("/proc/{}/fd/0", ada.pid()?))?;
    assert!(Command::new("stty").arg("-F").arg(tty).args(["cols", "40"]).status()?.success());
    ada.line(typed.get(35..).ok_or("too short")?)?;
    bob.ask("msg ada hello").await?;
    ada.see("hello")?;
    ada.line(typed.get(35..).ok_or("too short")?)?;
    ada.type_in(".\r")?;
    bob.wait("message", |event| event["text"].as_str().is_some_and(|text| text.ends_with("a long one."))).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_pasted_are_lines() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let mut ada = Terminal::start("ada", &net.dir("ada"), &[], &[])?;
    ada.line("ada> ")?;
    // Some terminals mark what is pasted, others just send it.
    ada.type_in("\x1b[200~echo one\recho two\x1b[201~\r")?;
    ada.see("\none\ntwo")?;
    ada.line("ada> ")?;
    ada.type_in("echo three\recho four\recho five\r")?;
    for said in ["\nthree", "\nfour", "\nfive"] {
        ada.see(said)?;
    }
    ada.line("ada> ")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_text_never_reaches_the_terminal_raw() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let (ada, mut bob) = ada_and_bob(&net, &[]).await?;
    let text = "\u{1b}[2J\u{1b}]0;owned\u{7}\r[12:00:00] eve: \u{9b}31m\u{202e}end";
    bob.ask(&format!("msg ada {}", serde_json::json!(text))).await?;
    ada.see("end")?;
    ada.line("ada (1)> ")?;
    let raw = ada.raw();
    let holds = |needle: &[u8]| raw.windows(needle.len()).any(|window| window == needle);
    assert!(!holds(b"\x1b[2J") && !holds(b"\x1b]0;") && !holds("\u{9b}".as_bytes()) && !holds("\u{202e}".as_bytes()));
    // The one bell is ours.
    assert_eq!(raw.iter().filter(|byte| **byte == 7).count(), 1);
    assert!(ada.contents().contains("\\u{1b}[2J"), "{}", ada.contents());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_colours_no_line_holds_one() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let coloured = |raw: &[u8]| {
        // SGR: ESC [ digits and semicolons m.
        let sgr = regex::bytes::Regex::new("\x1b\\[[0-9;]*m").map_err(|error| error.to_string())?;
        Ok::<bool, String>(sgr.is_match(raw))
    };
    let (ada, mut bob) = ada_and_bob(&net, &[("NO_COLOR", "1")]).await?;
    bob.ask("msg ada hello").await?;
    ada.see("hello")?;
    ada.line("ada (1)> ")?;
    assert!(!coloured(&ada.raw())?);
    let seed = net.addresses.first().ok_or("no seed")?;
    let flags = ["--no-color", "--mdns", "off", "--host", "127.0.0.1", "--name", "cleo", "--seed", seed];
    let cleo = Terminal::start_with(&net.dir("cleo"), &flags, &[])?;
    cleo.line("cleo> ")?;
    cleo.see("+ bob")?;
    bob.ask("wait peer cleo").await?;
    bob.ask("msg cleo hello").await?;
    cleo.line("cleo (1)> ")?;
    assert!(!coloured(&cleo.raw())?);
    let eve = Terminal::start("eve", &net.dir("eve"), &net.addresses, &[])?;
    eve.line("eve> ")?;
    eve.see("+ bob")?;
    assert!(coloured(&eve.raw())?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_menu_by_its_choices() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let (mut ada, mut bob) = ada_and_bob(&net, &[]).await?;
    ada.type_in("menu\r")?;
    ada.see("Network Control Panel")?;
    ada.line("ada menu> ")?;
    ada.type_in("nonsense\r")?;
    ada.see("there is no choice 'nonsense'")?;
    ada.line("ada menu> ")?;
    ada.type_in("5\r")?;
    ada.see("1  bob (connected")?;
    ada.line("ada menu> ")?;
    ada.type_in("1\r")?;
    ada.see("What do you want to say to bob?")?;
    // What happens is shown while a question stands.
    bob.ask("msg ada by the way").await?;
    ada.see("by the way")?;
    ada.type_in("a friendly word\r")?;
    bob.wait("message", |event| event["text"] == "a friendly word").await?;
    // Whoever is answered has been read.
    ada.line("ada menu> ")?;
    ada.type_in("1\r")?;
    ada.see("Whom do you want to talk to?")?;
    ada.type_in("bo\t\r")?;
    ada.line("ada → bob> ")?;
    ada.type_in("in a session\rexit\r")?;
    bob.wait("message", |event| event["text"] == "in a session").await?;
    ada.line("ada menu> ")?;
    ada.type_in("7\rall\r")?;
    ada.see("by the way")?;
    ada.line("ada menu> ")?;
    ada.type_in("6\rbob\r")?;
    bob.wait("peer_left", |event| event["name"] == "ada").await?;
    ada.line("ada menu> ")?;
    ada.type_in("0\r")?;
    assert_eq!(ada.status()?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_menu_connects_speaks_to_everybody_and_shows_what_was_said() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let mut ada = Terminal::start("ada", &net.dir("ada"), &[], &[])?;
    ada.line("ada> ")?;
    let mut bob = net.peer("bob", &[])?;
    let address = bob.address().await?;
    let port = address.split('/').nth(4).ok_or("no port")?;
    ada.type_in("menu\r3\r")?;
    ada.see("Which address (host:port or a multiaddr)?")?;
    ada.line("ada menu> ")?;
    // Nobody listens there: an error, and the menu again.
    ada.type_in("127.0.0.1:1\r")?;
    ada.see("error: ")?;
    ada.type_in("3\r")?;
    ada.type_in(&format!("127.0.0.1 {port}\r"))?;
    ada.see("+ bob")?;
    bob.wait("peer_up", |event| event["name"] == "ada").await?;
    ada.line("ada menu> ")?;
    ada.type_in("4\r")?;
    ada.see("What do you want to say to everybody?")?;
    ada.line("ada menu> ")?;
    ada.type_in("  the \"pump\" runs\r")?;
    let heard = bob.wait("message", |event| event["kind"] == "broadcast").await?;
    assert_eq!(heard["text"], "  the \"pump\" runs");
    ada.line("ada menu> ")?;
    // What comes to this person and what everybody was told are counted apart; only the one rings.
    bob.ask("broadcast good to hear").await?;
    ada.see("good to hear")?;
    ada.line("ada menu (1 to all)> ")?;
    assert_eq!(lock(&ada.shown.0).raw.iter().filter(|byte| **byte == 7).count(), 0);
    bob.ask("msg ada thank you").await?;
    ada.line("ada menu (1, 1 to all)> ")?;
    ada.until("a bell", |shown| shown.raw.contains(&7))?;
    ada.type_in("7\r")?;
    ada.see("Whose messages? A nickname, or `all`:")?;
    ada.line("ada menu (1, 1 to all)> ")?;
    ada.type_in("all\r")?;
    ada.line("ada menu> ")?;
    let contents = ada.contents();
    for said in ["the \"pump\" runs", "good to hear", "thank you"] {
        assert!(contents.contains(said), "{said}: {contents}");
    }
    bob.ask("broadcast one more").await?;
    ada.line("ada menu (1 to all)> ")?;
    ada.type_in("4\rheard\r")?;
    bob.wait("message", |event| event["text"] == "heard").await?;
    ada.line("ada menu> ")?;
    ada.type_in("6\r1\r")?;
    bob.wait("peer_left", |event| event["name"] == "ada").await?;
    ada.see("- the link to bob is closed")?;
    ada.line("ada menu> ")?;
    ada.type_in("3\rall\r")?;
    ada.see("bob: connected")?;
    ada.line("ada menu> ")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_thousand_lines_are_remembered() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let file = net.dir("ada").join("prompt_history");
    std::fs::create_dir_all(net.dir("ada"))?;
    let written: String = (0..1_500).map(|number| format!("echo old {number}\n")).collect();
    std::fs::write(&file, format!("#V2\n{written}"))?;
    let mut ada = Terminal::start("ada", &net.dir("ada"), &[], &[])?;
    ada.line("ada> ")?;
    ada.type_in("echo new\r")?;
    ada.see("\nnew")?;
    ada.line("ada> ")?;
    // Alt-< is the oldest line that is remembered.
    ada.type_in("\x1b<")?;
    ada.line("ada> echo old 501")?;
    ada.type_in(CTRL_C)?;
    ada.line("ada> ")?;
    ada.type_in(CTRL_D)?;
    assert_eq!(ada.status()?, 0);
    let mut ada = Terminal::start("ada", &net.dir("ada"), &[], &[])?;
    ada.line("ada> ")?;
    ada.type_in(UP)?;
    ada.line("ada> echo new")?;
    ada.type_in("\x1b<")?;
    ada.line("ada> echo old 501")?;
    let kept = std::fs::read_to_string(&file)?;
    assert!(kept.lines().count() <= 1_502, "{}", kept.lines().count());
    Ok(())
}

#[tokio::test]
async fn the_menu_asks_and_reads_lines_without_a_terminal() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let bob = net.peer("bob", &[])?;
    let address = bob.address().await?;
    let port = address.split('/').nth(4).ok_or("no port")?.to_owned();
    let dir = net.dir("ada").display().to_string();
    let args = ["--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--name", "ada", "--data-dir", &dir];
    let lines = format!("menu\n9\n\n1\n127.0.0.1\n{port}\nhello bob\nexit\n/wait delivered\nb\nstatus\nmenu\n2\n0\n");
    let output = run_with_input(&args, lines.as_bytes()).await?;
    let shown = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(0), "{shown}");
    bob.wait("message", |event| event["text"] == "hello bob").await?;
    assert!(shown.contains("there is no choice '9' in the menu; choose one of 1, 2, 3,"), "{shown}");
    assert!(shown.contains("127.0.0.1 is not known yet."), "{shown}");
    assert!(shown.matches("Network Control Panel").count() >= 4, "{shown}");
    let mut ada = net.peer("ada", &[])?;
    assert_eq!(ada.ask("menu").await?["menu"][0]["label"], "Start messaging session");
    assert_eq!(ada.reply_to("nonsense").await?["error"]["code"], "usage");
    ada.ask("b").await?;
    assert_eq!(ada.reply_to("nonsense").await?["error"]["code"], "unknown_command");
    Ok(())
}

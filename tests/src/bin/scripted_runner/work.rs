//! What a script does to its job's directories and to this process. Nothing here
//! touches the wire.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use shepherd_tests::{SPARSE_PIECE, Script, Step, big_byte, sparse_piece};

const PAUSE: Duration = Duration::from_millis(2);

/// No text, and no line either.
const NOISE: &[u8] = &[0xff, 0xfe, b'{', 0, b'\r', 0x1b, b'[', 0xc3];

/// Reads what the job wants, `None` when its input is no script.
pub(crate) fn script(job: &Path) -> Option<Script> {
    Script::parse(&std::fs::read(job.join("inputs/input")).ok()?)
}

/// How a job is heard of while it is in work.
pub(crate) trait Voice {
    fn print(&self, text: &str) -> anyhow::Result<()>;
    fn progress(&self, fraction: f64, message: &str);
}

/// On standard output, where nothing can be said of progress.
struct Printed;

impl Voice for Printed {
    fn print(&self, text: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    fn progress(&self, _: f64, _: &str) {}
}

/// Prints on standard output, and says its progress as it is told.
pub(crate) struct Says<F>(pub(crate) F);

impl<F: Fn(f64, &str)> Voice for Says<F> {
    fn print(&self, text: &str) -> anyhow::Result<()> {
        Printed.print(text)
    }

    fn progress(&self, fraction: f64, message: &str) {
        self.0(fraction, message);
    }
}

/// Does a job in its directory, which nobody hears of otherwise.
pub(crate) fn work(job: &Path, cancelled: &dyn Fn() -> bool) -> anyhow::Result<()> {
    work_aloud(job, cancelled, &Printed)
}

/// Does a job in its directory. An error is the job's.
pub(crate) fn work_aloud(job: &Path, cancelled: &dyn Fn() -> bool, voice: &dyn Voice) -> anyhow::Result<()> {
    let output = job.join("outputs/output");
    let Some(script) = script(job) else { return copy(job, &output) };
    match script {
        Script::Say(text) => write(&output, text),
        Script::Gate(gate) => {
            wait(cancelled, || gate.exists())?;
            write(&output, "through")
        }
        Script::Env(name) => {
            write(&output, std::env::var(&name).with_context(|| format!("{name} is not set"))?)
        }
        Script::Files(files) => {
            for (name, text) in files {
                write(&job.join("outputs").join(name), text)?;
            }
            Ok(())
        }
        Script::Copy => copy_all(&job.join("inputs"), &job.join("outputs")),
        Script::Many(count) => {
            for i in 0..count {
                let name = format!("out-{i:05}");
                write(&job.join("outputs").join(&name), &name)?;
            }
            Ok(())
        }
        Script::Big(size) => big(&output, size),
        Script::Sparse(size) => sparse(&output, size),
        Script::Noise => {
            std::io::stdout().write_all(NOISE)?;
            std::io::stderr().write_all(NOISE)?;
            write(&output, "said")
        }
        Script::Steps(steps) => {
            for step in steps {
                match step {
                    Step::Print(text) => voice.print(&text)?,
                    Step::Progress(fraction, message) => voice.progress(fraction, &message),
                    Step::Gate(gate) => wait(cancelled, || gate.exists())?,
                    Step::Fail(message) => bail!(message),
                    Step::Exit(code) => std::process::exit(code),
                }
            }
            write(&output, "stepped")
        }
        Script::Nothing => Ok(()),
        Script::Link(to) => Ok(std::os::unix::fs::symlink(to, output)?),
        Script::Fail(message) => bail!(message),
        Script::Exit(code) => std::process::exit(code),
        Script::ExitOnce { marker } => {
            if is_first(&marker)? {
                std::process::exit(1);
            }
            write(&output, "survived")
        }
        Script::Hang { child } => {
            let process = std::process::Command::new("sleep").arg("100000").spawn()?;
            // Whoever sees the file sees all of it.
            let aside = child.with_extension("aside");
            write(&aside, process.id().to_string())?;
            std::fs::rename(aside, child)?;
            wait(cancelled, || false)
        }
        Script::Garbage | Script::AnswerFor { .. } | Script::AnswerTwice | Script::StaleAnswer { .. } => {
            bail!("only a raw runner can do that")
        }
    }
}

/// Whether `marker` was made just now.
pub(crate) fn is_first(marker: &Path) -> anyhow::Result<bool> {
    match std::fs::File::create_new(marker) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Ends only with the process.
pub(crate) fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn wait(cancelled: &dyn Fn() -> bool, over: impl Fn() -> bool) -> anyhow::Result<()> {
    while !over() {
        if cancelled() {
            bail!("cancelled");
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Copies the default input, or lists the inputs when there is none.
fn copy(job: &Path, output: &Path) -> anyhow::Result<()> {
    let inputs = job.join("inputs");
    match std::fs::copy(inputs.join("input"), output) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut lines = Vec::new();
            list(&inputs, "", &mut lines)?;
            lines.sort_unstable();
            write(output, lines.concat())
        }
        Err(e) => Err(e.into()),
    }
}

fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), &to).with_context(|| format!("copying {}", to.display()))?;
        }
    }
    Ok(())
}

fn list(dir: &Path, prefix: &str, lines: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let meta = std::fs::metadata(entry.path())?;
        if meta.is_dir() {
            list(&entry.path(), &format!("{name}/"), lines)?;
        } else {
            lines.push(format!("{name} {}\n", meta.len()));
        }
    }
    Ok(())
}

fn big(output: &Path, size: u64) -> anyhow::Result<()> {
    const PIECE: u64 = 1 << 20;
    let mut file = std::fs::File::create(output)?;
    let mut offset = 0;
    while offset < size {
        let end = (offset + PIECE).min(size);
        let piece: Vec<u8> = (offset..end).map(big_byte).collect();
        file.write_all(&piece)?;
        offset = end;
    }
    Ok(())
}

fn sparse(output: &Path, size: u64) -> anyhow::Result<()> {
    use std::os::unix::fs::FileExt as _;

    let file = std::fs::File::create(output)?;
    file.set_len(size)?;
    for offset in (0..size).step_by(usize::try_from(SPARSE_PIECE)?) {
        file.write_all_at(&sparse_piece(offset), offset)?;
    }
    Ok(())
}

//! A runner that costs as little as one can: it copies `inputs/input` to
//! `outputs/output`.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use shepherd_runner::{Job, Options, RunError, Runner, serve};

/// Inputs of at most this many bytes are copied through memory.
const SMALL: usize = 64 << 10;

#[derive(Parser)]
struct Arguments {
    /// Never end a job, so that the next ones wait.
    #[arg(long)]
    hold: bool,
    /// Append a byte to this file for each job.
    #[arg(long)]
    tally: Option<PathBuf>,
    /// Append the time that each job took, in seconds, to this file.
    #[arg(long)]
    times: Option<PathBuf>,
    #[arg(short, default_value_t = 9999)]
    port: u16,
    /// The model's config, which says nothing.
    config: PathBuf,
}

struct Noop {
    hold: bool,
    tally: Option<File>,
    times: Option<File>,
    buffer: Vec<u8>,
}

impl Runner for Noop {
    fn process(&mut self, job: &Job) -> Result<(), RunError> {
        let begun = Instant::now();
        if self.hold {
            while !job.is_stopped() {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            return Err(RunError::interrupted());
        }
        self.copy(job)?;
        if let Some(tally) = &mut self.tally {
            tally.write_all(b".")?;
        }
        if let Some(times) = &mut self.times {
            times.write_all(format!("{}\n", begun.elapsed().as_secs_f64()).as_bytes())?;
        }
        Ok(())
    }
}

impl Noop {
    fn copy(&mut self, job: &Job) -> std::io::Result<()> {
        let (input, output) = (job.inputs().join("input"), job.outputs().join("output"));
        self.buffer.resize(SMALL, 0);
        let mut file = match File::open(&input) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return std::fs::write(output, b""),
            Err(e) => return Err(e),
        };
        let read = file.read(&mut self.buffer)?;
        if read < SMALL {
            return std::fs::write(output, &self.buffer[..read]);
        }
        std::fs::copy(input, output).map(drop)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    if !arguments.config.is_file() {
        return Err(format!("there is no {}", arguments.config.display()).into());
    }
    let append = |path: &PathBuf| OpenOptions::new().append(true).create(true).open(path);
    let runner = Noop {
        hold: arguments.hold,
        tally: arguments.tally.as_ref().map(append).transpose()?,
        times: arguments.times.as_ref().map(append).transpose()?,
        buffer: Vec::new(),
    };
    serve(runner, Options::from_env(arguments.port))?;
    Ok(())
}

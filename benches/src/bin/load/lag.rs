//! How far the write-back of files lags behind the jobs, as the job store's file shows it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags};

use crate::report::Section;

/// How often it is looked at.
const PERIOD: Duration = Duration::from_millis(200);

/// The most that was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    jobs: i64,
    micros: i64,
}

/// A thread that looks at the store until it is asked.
pub(crate) struct Sampler {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Lag>>,
}

impl Sampler {
    /// Begins with the store of a daemon that runs.
    pub(crate) fn start(state_dir: &Path) -> anyhow::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let store = Connection::open_with_flags(state_dir.join("queue.sqlite"), flags)?;
        let ends = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut most = Lag::default();
            while !asked.load(Ordering::Relaxed) {
                let lag = look(&store)?;
                most = Lag { jobs: most.jobs.max(lag.jobs), micros: most.micros.max(lag.micros) };
                std::thread::sleep(PERIOD);
            }
            Ok(most)
        });
        Ok(Self { ends, thread })
    }

    /// Adds what was seen to the section.
    pub(crate) fn report(self, section: &mut Section) -> anyhow::Result<()> {
        self.ends.store(true, Ordering::Relaxed);
        let most = self.thread.join().ok().context("the thread that looks at the store has panicked")??;
        section.row("write-back, most jobs pending", most.jobs as f64, "");
        section.row("write-back, longest lag", most.micros as f64 / 1e6, "s");
        Ok(())
    }
}

fn look(store: &Connection) -> anyhow::Result<Lag> {
    let (jobs, since) = store.query_row("SELECT count(*), min(since) FROM write_back", [], |row| {
        Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?))
    })?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
    Ok(Lag { jobs, micros: since.map_or(0, |since| now - since) })
}

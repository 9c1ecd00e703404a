//! Submits a text, shows what happens to the job, and prints its result:
//! `cargo run -p shepherd-client --example submit -- http://127.0.0.1:5000 upper 1 "counting sheep"`.

use std::error::Error;
use std::io::Write as _;

use shepherd_client::blocking::Client;
use shepherd_client::{EventKind, Submission};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, model, version, text] = arguments.as_slice() else {
        return Err("expected URL MODEL VERSION TEXT".into());
    };
    let client = Client::new(url)?;
    let job = client.submit(Submission::new(model, version).payload(text))?;
    for event in job.events(None) {
        match event?.kind {
            EventKind::Status(status) => eprintln!("{}: {:?}", job.id(), status.state),
            EventKind::Progress(progress) => eprintln!("{}: {progress:?}", job.id()),
        }
    }
    std::io::stdout().write_all(&job.result(None)?)?;
    Ok(())
}

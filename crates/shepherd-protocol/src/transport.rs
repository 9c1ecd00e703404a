//! How frames travel: as nng's Pair1 protocol over `ipc://` or `tcp://`, or as
//! ZeroMQ messages to a runner of the first shepherd.
//!
//! ```text
//!   shepherd                                    runner
//!   Connection (async)                          RunnerSocket (blocking)
//!     │ sp or zmtp: greeting and frames           │
//!   UnixStream or TcpStream ◀───────────────▶ nng, as in any runner's language
//! ```
//!
//! The runner's side is the nng library. The shepherd's side speaks the same wire
//! by itself (the scalability protocols' IPC and TCP mappings, with Pair1's hop
//! count), for two reasons. libnng 1.12.4 deadlocks when an ipc connection is
//! closed between the arrival of a message's length and that of its body: the
//! thread that reaps the connections of the *whole process* then waits for ever.
//! A runner ends with its connection and can live with that; a daemon that outlives
//! thousands of them cannot. And without nng's threads in between a message costs
//! the shepherd one system call and no change of thread.
//!
//! An old runner binds a ROUTER and knows inputs, done and error. What it does not
//! say is said for it: it is ready when it has greeted, and heartbeats are the
//! wire's own. It cannot be told to let go of a job, or to end. A ZeroMQ library on
//! this side would keep what it could not deliver for whoever binds the port next;
//! here what was not written when a connection ended is gone, as with nng.

mod buffer;
mod connection;
mod link;
mod outbox;
mod parser;
mod runner_socket;
mod sp;
mod stream;
mod url;
mod zmtp;

// The library itself: without it, nng would link the libnng 1.4 that it bundles,
// which crashes when a peer dies under load.
extern crate nng_c_sys as _;

pub use connection::{Connection, Receiver, Sender};
pub use runner_socket::{RunnerReceiver, RunnerSender, RunnerSocket};

#[cfg(test)]
mod tests {
    #[test]
    #[expect(unsafe_code, reason = "the library's version has no safe binding")]
    fn the_library_is_the_one_that_survives_the_death_of_peers() {
        // SAFETY: returns a pointer to a constant, NUL-terminated string.
        let version = unsafe { std::ffi::CStr::from_ptr(nng_c_sys::nng_version()) };
        assert_eq!(version.to_str(), Ok("1.12.4"));
    }
}

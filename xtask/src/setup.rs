//! Finds out what this machine lacks and installs it with apt-get, saying what and why.
//!
//! What is there already is left alone: a machine that has everything is not touched, and needs no network.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::{self, succeeds};
use crate::{Result, root};

/// Something that is needed, the Debian packages that bring it, and the reason to give for installing them.
pub(crate) struct Need {
    pub(crate) what: &'static str,
    pub(crate) why: &'static str,
    pub(crate) packages: &'static [&'static str],
    pub(crate) is_present: fn() -> bool,
}

const BUILD_TOOLS: &[Need] = &[
    Need {
        what: "a C compiler and the C library's headers",
        why: "Rust links with it, and SQLite and nng are built from source",
        packages: &["gcc", "libc6-dev"],
        is_present: || succeeds("cc", &["--version"]) && has_c_headers(),
    },
    Need {
        what: "make",
        why: "the build of nng uses it",
        packages: &["make"],
        is_present: || succeeds("make", &["--version"]),
    },
    Need {
        what: "cmake",
        why: "nng is configured with it",
        packages: &["cmake"],
        is_present: || succeeds("cmake", &["--version"]),
    },
    Need {
        what: "the certificates of public authorities",
        why: "cargo and pip download over TLS",
        packages: &["ca-certificates"],
        is_present: || Path::new("/etc/ssl/certs/ca-certificates.crt").exists() || !has_apt(),
    },
];

/// Installs what building the workspace needs.
pub(crate) fn build_tools() -> Result<()> {
    report_what_the_linker_installed();
    install_missing(BUILD_TOOLS)
}

/// Installs those of `needs` that are not there.
///
/// # Errors
/// There is no apt-get, no way to become root, or the installation failed. The message names the packages.
pub(crate) fn install_missing(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.is_present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    for need in &missing {
        println!("{} is missing; {}: installing {}", need.what, need.why, need.packages.join(" "));
    }
    if !has_apt() {
        let what: Vec<&str> = missing.iter().map(|need| need.what).collect();
        return Err(format!(
            "there is no apt-get here; install {} with this system's own means (Debian's packages: {})",
            what.join(", "),
            packages.join(" ")
        )
        .into());
    }
    command::run_quietly("apt-get update", apt_get()?.args(["update", "-q"]))?;
    let mut install = apt_get()?;
    install.args(["install", "-q", "-y", "--no-install-recommends"]).args(&packages);
    command::run_quietly(&format!("apt-get install {}", packages.join(" ")), &mut install)?;
    // apt-get may end well and the tool still not be on PATH, for example behind an older one.
    match missing.iter().find(|need| !(need.is_present)()) {
        None => Ok(()),
        Some(need) => {
            Err(format!("{} was installed but still does not work", need.packages.join(" ")).into())
        }
    }
}

fn has_apt() -> bool {
    succeeds("apt-get", &["--version"])
}

fn has_c_headers() -> bool {
    let mut check = Command::new("cc");
    check.args(["-E", "-x", "c", "-include", "stdlib.h", "/dev/null"]);
    check.output().is_ok_and(|output| output.status.success())
}

/// apt-get that asks nothing, as root.
fn apt_get() -> Result<Command> {
    let mut command = if is_root() {
        Command::new("apt-get")
    } else if succeeds("sudo", &["--version"]) {
        let mut sudo = Command::new("sudo");
        // sudo clears the environment, so the variable is set on its far side.
        sudo.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        sudo
    } else {
        return Err("installing packages needs root: run this as root, or install sudo".into());
    };
    command.env("DEBIAN_FRONTEND", OsString::from("noninteractive"));
    Ok(command)
}

pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// `.cargo/linker` runs before this program exists and cannot print: what it installed is told here.
fn report_what_the_linker_installed() {
    let note = root().join("target/installed-to-link");
    if let Ok(packages) = fs::read_to_string(&note) {
        println!("a C compiler was missing; Rust links with it: installed {}", packages.trim());
        // A note that stays is told again, which harms nobody.
        let _ = fs::remove_file(&note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_installed_when_nothing_is_missing() {
        let present = Need { what: "this", why: "a test", packages: &["none"], is_present: || true };
        install_missing(&[present]).unwrap();
    }

    #[test]
    fn headers_that_a_compiler_finds_are_found() {
        // Every machine that built this test has a compiler with headers.
        assert!(has_c_headers());
    }
}

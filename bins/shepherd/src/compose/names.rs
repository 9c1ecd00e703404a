//! The names of this machine, by which its API may be asked.

/// The machine's host name, and the other names that its hosts file gives it. A machine
/// whose names cannot be read has none.
pub(super) fn of_this_machine() -> Vec<String> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let hostname = read("/proc/sys/kernel/hostname");
    names(hostname.trim(), &read("/etc/hosts"))
}

/// The host name, and all names of the lines of the hosts file that have it. Other lines
/// are of other machines, or of names that are to lead nowhere.
fn names(hostname: &str, hosts: &str) -> Vec<String> {
    if hostname.is_empty() {
        return Vec::new();
    }
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut names = vec![hostname.to_owned()];
    for line in lines {
        let of_line = line.split_ascii_whitespace().skip(1);
        if of_line.clone().any(|name| name.eq_ignore_ascii_case(hostname)) {
            names.extend(of_line.map(str::to_owned));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn the_machine_has_the_names_of_its_own_lines_only() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1\tgpu.example.org GPU # gpu ours\n0.0.0.0 ads.example\n#10.0.0.1 gpu old.example\n";
        assert_eq!(names("gpu", hosts), ["gpu", "gpu.example.org", "GPU"]);
        assert_eq!(names("other.example", hosts), ["other.example"]);
        assert_eq!(names("", hosts), Vec::<String>::new());
    }
}

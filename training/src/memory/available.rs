//! How much memory this process can still get, and has had.

use std::fs;
use std::path::Path;

/// Memory in bytes that the system can still give this process: what is free or can be freed, but
/// no more than the limits of its control groups (of a container) allow. `None` where the system
/// does not report it.
pub fn available() -> Option<u64> {
    available_below(Path::new("/"))
}

/// [`available`] with another root of the file system.
fn available_below(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let free = read("proc/meminfo").and_then(|text| value_of(&text, "MemAvailable:"))? * 1024;
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let left = groups.lines().filter_map(|line| {
        // `0::/path` of version 2, `4:memory:/path` of version 1.
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let files = match controllers {
            "" => ["sys/fs/cgroup", "memory.max", "memory.current"],
            _ if controllers.split(',').any(|name| name == "memory") => {
                ["sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"]
            }
            _ => return None,
        };
        left_in_groups(&root.join(files[0]), path, [files[1], files[2]])
    });
    Some(left.fold(free, u64::min))
}

/// The most memory in bytes that this process has held at a time, where the system reports it.
pub fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(value_of(&status, "VmHWM:")? * 1024)
}

/// What the limits of a control group and of those above it leave, below the folder `mounted`.
fn left_in_groups(mounted: &Path, path: &str, [limit, used]: [&str; 2]) -> Option<u64> {
    let own = mounted.join(path.trim_start_matches('/'));
    let groups = own.ancestors().take_while(|folder| folder.starts_with(mounted));
    let left = groups.filter_map(|folder| {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        // `max`, which does not parse, where there is no limit.
        let limit: u64 = read(limit)?.trim().parse().ok()?;
        let used: u64 = read(used)?.trim().parse().ok()?;
        // Pages of files are given back when memory is short.
        let files = read("memory.stat").and_then(|text| value_of(&text, "file "));
        Some(limit.saturating_sub(used.saturating_sub(files.unwrap_or(0))))
    });
    left.min()
}

/// The number after a name at the beginning of a line.
fn value_of(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_less_than_the_machine() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let available = || available_below(root.path());
        assert_eq!(available(), None);
        put("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n");
        assert_eq!(available(), Some(8000 << 10));

        put("proc/self/cgroup", "0::/a/b\n");
        put("sys/fs/cgroup/a/b/memory.max", "max\n");
        put("sys/fs/cgroup/a/b/memory.current", "1000\n");
        assert_eq!(available(), Some(8000 << 10));
        // The group above has a limit; half of what is used are pages of files.
        put("sys/fs/cgroup/a/memory.max", "5000\n");
        put("sys/fs/cgroup/a/memory.current", "4000\n");
        put("sys/fs/cgroup/a/memory.stat", "anon 2000\nfile 2000\nfile_mapped 7\n");
        assert_eq!(available(), Some(3000));

        put("proc/self/cgroup", "4:cpu,memory:/c\n3:pids:/c\n");
        put("sys/fs/cgroup/memory/c/memory.limit_in_bytes", "2500\n");
        put("sys/fs/cgroup/memory/c/memory.usage_in_bytes", "2000\n");
        assert_eq!(available(), Some(500));
    }
}

//! `/proc/net/stat/nf_conntrack`: one line a CPU, hexadecimal, below a line of names that differ by kernel.

use super::netlink::StatsError;
use crate::snapshot::ConntrackCounts;

/// Below the root directory.
pub(super) const FILE: &str = "proc/net/stat/nf_conntrack";

/// The file's names where they are not those of `conntrack -S`.
const NAMES: [(&str, &str); 3] =
    [("error", "icmp_error"), ("clash_resolve", "clashres"), ("chaintoolong", "chainlength")];

pub(super) fn by_cpu() -> Result<Vec<ConntrackCounts>, StatsError> {
    // This thread may be in another namespace than the process.
    let path = "/proc/thread-self/net/stat/nf_conntrack";
    let text = std::fs::read_to_string(path).map_err(StatsError::Procfs)?;
    parse(&text).ok_or(StatsError::Malformed)
}

fn parse(text: &str) -> Option<Vec<ConntrackCounts>> {
    let mut lines = text.lines();
    let names: Vec<_> = lines.next()?.split_whitespace().collect();
    let mut cpus = Vec::new();
    for (cpu, line) in (0..).zip(lines) {
        let values: Vec<_> = line.split_whitespace().map(|v| u64::from_str_radix(v, 16)).collect();
        let mut counts = ConntrackCounts { cpu, ..ConntrackCounts::default() };
        for (name, field) in ConntrackCounts::FIELDS {
            let here = NAMES.iter().find(|(ours, _)| *ours == name).map_or(name, |(_, theirs)| theirs);
            let Some(at) = names.iter().position(|n| *n == here) else { continue };
            *field(&mut counts) = Some(*values.get(at)?.as_ref().ok()?);
        }
        cpus.push(counts);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_which_column_is_what() {
        let text = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop \
                    icmp_error  expect_new expect_create expect_delete search_restart\n\
                    00000002  00000001 00000000 00000000 0000000a 00000000 00000000 00000003 00000000 00000004 \
                    00000010 00000005 00000006  00000000 00000000 00000000 00000007\n\
                    00000002  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
                    00000000 00000000 00000000  00000000 00000000 00000000 00000000\n";
        let cpus = parse(text).unwrap();
        assert_eq!(cpus.len(), 2);
        assert_eq!(
            cpus[0],
            ConntrackCounts {
                cpu: 0,
                invalid: Some(10),
                insert_failed: Some(4),
                drop: Some(16),
                early_drop: Some(5),
                error: Some(6),
                search_restart: Some(7),
                clash_resolve: Some(1),
                chain_too_long: Some(3),
            }
        );
        assert_eq!(cpus[1].cpu, 1);
    }

    #[test]
    fn an_older_kernel_has_fewer_columns() {
        let cpus = parse("entries searched invalid drop\n00000001 00000002 00000003 00000004\n").unwrap();
        assert_eq!((cpus[0].invalid, cpus[0].drop, cpus[0].clash_resolve), (Some(3), Some(4), None));
        assert_eq!(parse("entries drop\n00000001\n"), None, "cut off");
        assert_eq!(parse("entries drop\n00000001 xyz\n"), None);
        assert_eq!(parse(""), None);
    }
}

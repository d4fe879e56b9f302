//! Every way in which a measurement can be lost, on either side of the kernel boundary. Nothing is lost silently:
//! each reason has a counter, and each counter a place in the report.

/// Why something was not measured.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// Kernel: the ring buffer had no room for a record.
    RingFull = 0,
    /// Kernel: a map had no room for an entry.
    MapFull = 1,
    /// Kernel: a packet's headers could not be parsed (truncated, bad length, too many of them).
    Unparsable = 2,
    /// Kernel: an end was seen whose start was not (packet in flight at start, slot taken by another).
    Unmatched = 3,
    /// Kernel: a latency above the histogram's range was recorded as its largest value.
    Clamped = 4,
    /// Kernel: a start was overwritten before its end came.
    Evicted = 5,
    /// Kernel: a start was seen while the hook that sees its end was not attached yet.
    Unhooked = 6,
    /// User: a ring record had a wrong length or an unknown kind.
    BadRecord = 7,
    /// User: a DNS message could not be parsed.
    DnsUnparsable = 8,
    /// User: a DNS answer came whose query was not seen.
    DnsUnmatched = 9,
    /// User: a bounded table was full; the entry was counted in the totals only.
    TableFull = 10,
    /// User: a recording's frame was corrupt or cut off.
    BadFrame = 11,
}

impl Loss {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::RingFull,
        Self::MapFull,
        Self::Unparsable,
        Self::Unmatched,
        Self::Clamped,
        Self::Evicted,
        Self::Unhooked,
        Self::BadRecord,
        Self::DnsUnparsable,
        Self::DnsUnmatched,
        Self::TableFull,
        Self::BadFrame,
    ];
    /// The first so many are counted by kernel programs.
    pub const IN_KERNEL: usize = 7;

    /// The name used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::MapFull => "map_full",
            Self::Unparsable => "unparsable",
            Self::Unmatched => "unmatched",
            Self::Clamped => "clamped",
            Self::Evicted => "evicted",
            Self::Unhooked => "unhooked",
            Self::BadRecord => "bad_record",
            Self::DnsUnparsable => "dns_unparsable",
            Self::DnsUnmatched => "dns_unmatched",
            Self::TableFull => "table_full",
            Self::BadFrame => "bad_frame",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::RingFull => "records lost because the ring buffer was full (raise --ring-size)",
            Self::MapFull => "entries not kept because a kernel map was full",
            Self::Unparsable => "packets whose headers could not be parsed",
            Self::Unmatched => "ends seen without their start (in flight at start, or slot taken)",
            Self::Clamped => "latencies above the histogram's range, recorded as its largest value",
            Self::Evicted => "starts overwritten before their end came",
            Self::Unhooked => "starts seen before the hook that sees their end was attached",
            Self::BadRecord => "ring records of a wrong length or unknown kind",
            Self::DnsUnparsable => "DNS messages that could not be parsed",
            Self::DnsUnmatched => "DNS answers whose query was not seen",
            Self::TableFull => "entries counted in totals only because a table was full",
            Self::BadFrame => "corrupt or cut-off frames of a recording",
        }
    }

    /// Whether a kernel program counts it.
    #[must_use]
    pub const fn is_kernel(self) -> bool {
        (self as usize) < Self::IN_KERNEL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_order_of_all() {
        for (i, l) in Loss::ALL.into_iter().enumerate() {
            assert_eq!(l as usize, i);
            assert_eq!(l.is_kernel(), i < Loss::IN_KERNEL);
        }
    }
}

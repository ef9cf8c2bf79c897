//! Which transactions a statement saw, by the text of `pg_current_snapshot()` (PostgreSQL docs,
//! "Transaction ID and Snapshot Information Functions").
//!
//! Pure. The stream names transactions by 32 bits, a snapshot by 64: the 32 bits are taken as the
//! transaction nearest to the snapshot, which holds while the two are less than 2^31 transactions
//! apart, as Postgres itself ensures for everything alive.

use std::fmt;

/// A snapshot: below `xmin` all transactions are finished, from `xmax` on none, between them all
/// but those named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    /// Still running when the snapshot was taken; ascending.
    in_progress: Vec<u64>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,…`; `None` if it is no such text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let xmin = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let listed = parts.next()?;
        let mut in_progress = if listed.is_empty() {
            Vec::new()
        } else {
            listed.split(',').map(|xid| xid.parse().ok()).collect::<Option<Vec<u64>>>()?
        };
        in_progress.sort_unstable();
        (xmin <= xmax).then_some(Self { xmin, xmax, in_progress })
    }

    /// Whether a transaction that is known to have committed was visible to the statement. If not,
    /// the statement shows the rows as they were before it.
    pub fn sees(&self, xid: u32) -> bool {
        let xid = self.widen(xid);
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }

    /// The 64-bit id with these low bits that is nearest to `xmax`.
    fn widen(&self, xid: u32) -> u64 {
        const EPOCH: u64 = 1 << 32;
        const HALF: u64 = 1 << 31;
        let low_mask = EPOCH - 1;
        let ahead = (u64::from(xid).wrapping_sub(self.xmax)) & low_mask;
        if ahead < HALF {
            self.xmax.saturating_add(ahead)
        } else {
            self.xmax.saturating_sub(EPOCH - ahead)
        }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running: Vec<String> = self.in_progress.iter().map(u64::to_string).collect();
        write!(f, "{}:{}:{}", self.xmin, self.xmax, running.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn low(xid: u64) -> u32 {
        u32::try_from(xid & 0xFFFF_FFFF).unwrap()
    }

    #[test]
    fn reads_what_postgres_prints() {
        let snapshot = Snapshot::parse("10:20:10,14,15").unwrap();
        assert!(snapshot.sees(9) && snapshot.sees(11) && snapshot.sees(19));
        assert!(
            !snapshot.sees(10) && !snapshot.sees(14) && !snapshot.sees(20) && !snapshot.sees(21)
        );
        assert!(Snapshot::parse("7:7:").unwrap().sees(6));
        for text in ["", "1", "1:2", "2:1:", "1:2:x", "1:2:1,", "-1:2:"] {
            assert_eq!(Snapshot::parse(text), None, "{text}");
        }
    }

    proptest! {
        /// The same answer as Postgres' own rule on 64 bits, also across the wrap of 32 bits.
        #[test]
        fn sees_what_the_64_bit_rule_sees(
            epoch in 0u64..4,
            start in 3u64..(1 << 32),
            width in 0u64..200,
            running in proptest::collection::btree_set(0u64..200, 0..20),
            offset in -1_000_000i64..1_000_000,
        ) {
            let xmin = (epoch << 32) + start;
            let xmax = xmin + width;
            let running: Vec<u64> =
                running.into_iter().map(|at| xmin + at).filter(|xid| *xid < xmax).collect();
            let text = running.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
            let snapshot = Snapshot::parse(&format!("{xmin}:{xmax}:{text}")).unwrap();
            let printed = Snapshot::parse(&snapshot.to_string());
            prop_assert_eq!(printed.as_ref(), Some(&snapshot));
            let near = xmin.saturating_add_signed(offset);
            for xid in [near, xmin + width / 2, xmax, xmin.saturating_sub(1)] {
                let expected = xid < xmin || (xid < xmax && !running.contains(&xid));
                prop_assert_eq!(snapshot.sees(low(xid)), expected, "{} in {}:{}", xid, xmin, xmax);
            }
        }
    }
}

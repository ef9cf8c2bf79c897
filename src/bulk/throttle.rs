//! How much to send at a time, learned from what the server takes: additive increase, multiplicative decrease.
//!
//! An overloaded server first gets smaller requests, then fewer at a time; both grow back by small steps. A
//! limit on a request's bytes (`http.max_content_length`, a proxy's own) does not pass, so that it is kept.

/// Requests are not made smaller than this many documents, or all of a batch's if it has fewer.
const ITEMS_MIN: usize = 16;
/// A request that is taken whole lets the next be larger by this part of the most.
const STEPS: usize = 16;
/// Under pressure, requests shrink by this factor.
const DECREASE: usize = 2;

/// The limits in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    items_max: usize,
    items: usize,
    requests_max: usize,
    requests: usize,
    /// Requests taken since the last change of `requests`.
    taken: usize,
    bytes: usize,
}

impl Throttle {
    /// No pressure known: requests of `items_max` documents, `requests_max` at a time.
    pub fn new(items_max: usize, requests_max: usize) -> Self {
        let (items_max, requests_max) = (items_max.max(1), requests_max.max(1));
        Self {
            items_max,
            items: items_max,
            requests_max,
            requests: requests_max,
            taken: 0,
            bytes: usize::MAX,
        }
    }

    /// Documents in a request, at most.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Bytes of a request, at most; one larger document travels alone.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Requests in flight, at most.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Whether it holds back anything.
    pub fn is_reduced(&self) -> bool {
        self.items < self.items_max || self.requests < self.requests_max
    }

    /// The server turned away some or all of a request of `sent` documents because it has too much to do.
    pub fn overloaded(&mut self, sent: usize) {
        let least = ITEMS_MIN.min(self.items_max);
        self.taken = 0;
        if self.items > least {
            self.items = (self.items.min(sent.max(1)) / DECREASE).max(least);
        } else {
            self.requests = (self.requests / DECREASE).max(1);
        }
    }

    /// The server took a request whole.
    pub fn accepted(&mut self, sent: usize) {
        if self.requests < self.requests_max {
            self.taken += 1;
            if self.taken >= self.requests {
                self.requests += 1;
                self.taken = 0;
            }
        } else if sent >= self.items {
            self.items = (self.items + (self.items_max / STEPS).max(1)).min(self.items_max);
        }
    }

    /// The server takes no request of `bytes`.
    pub fn too_large(&mut self, bytes: usize) {
        self.bytes = self.bytes.min((bytes / DECREASE).max(1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn smaller_then_fewer_and_back() {
        let mut throttle = Throttle::new(1000, 8);
        assert!(!throttle.is_reduced());
        let mut sizes = Vec::new();
        for _ in 0..10 {
            throttle.overloaded(throttle.items());
            sizes.push((throttle.items(), throttle.requests()));
        }
        assert_eq!(sizes[..3], [(500, 8), (250, 8), (125, 8)]);
        assert_eq!(sizes[5..], [(16, 8), (16, 4), (16, 2), (16, 1), (16, 1)]);
        let mut taken = 0;
        while throttle.is_reduced() {
            throttle.accepted(throttle.items());
            taken += 1;
        }
        assert!((20..60).contains(&taken), "{taken}");
    }

    #[test]
    fn small_requests_say_nothing_of_large_ones() {
        let mut throttle = Throttle::new(1000, 1);
        throttle.overloaded(1000);
        throttle.accepted(3);
        assert_eq!(throttle.items(), 500);
        throttle.accepted(500);
        assert_eq!(throttle.items(), 562);
    }

    #[test]
    fn a_limit_of_bytes_is_kept() {
        let mut throttle = Throttle::new(1000, 1);
        throttle.too_large(1_000_000);
        throttle.too_large(800_000);
        throttle.accepted(1000);
        assert_eq!(throttle.bytes(), 400_000);
    }

    proptest! {
        #[test]
        fn never_nothing_and_never_more_than_configured(
            items_max in 0usize..3000,
            requests_max in 0usize..70,
            events in prop::collection::vec((any::<bool>(), 0usize..3000), 0..200),
        ) {
            let mut throttle = Throttle::new(items_max, requests_max);
            for (is_overloaded, sent) in events {
                if is_overloaded { throttle.overloaded(sent) } else { throttle.accepted(sent) }
                prop_assert!((1..=items_max.max(1)).contains(&throttle.items()));
                prop_assert!((1..=requests_max.max(1)).contains(&throttle.requests()));
            }
        }
    }
}

//! Percentiles and the evenness of a spread. Pure.

use std::collections::BTreeMap;

/// The value that a share (0 to 1) of the values does not exceed: nearest rank. `None` of nothing.
pub fn percentile(sorted: &[u64], share: f64) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    Some(sorted[rank.saturating_sub(1).min(last)])
}

/// How requests were spread over those that were to serve them.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// Requests by server; servers without any are there with 0.
    pub counts: BTreeMap<String, u64>,
    /// Largest distance of a server's count from the even share, as a part of the even share.
    pub deviation: f64,
    /// Pearson's statistic against the even spread.
    pub chi_square: f64,
}

/// The spread of `served` over `servers`. Requests served by somebody else count as a server too.
#[allow(clippy::cast_precision_loss)] // Counts of requests.
pub fn spread<'s>(servers: impl IntoIterator<Item = &'s str>, served: impl IntoIterator<Item = &'s str>) -> Spread {
    let mut counts: BTreeMap<String, u64> = servers.into_iter().map(|s| (s.to_owned(), 0)).collect();
    for server in served {
        *counts.entry(server.to_owned()).or_default() += 1;
    }
    let total: u64 = counts.values().sum();
    let even = total as f64 / counts.len().max(1) as f64;
    let distance = |count: &u64| (*count as f64 - even).abs();
    let (mut deviation, mut chi_square) = (0.0, 0.0);
    if even > 0.0 {
        deviation = counts.values().map(distance).fold(0.0, f64::max) / even;
        chi_square = counts.values().map(|c| distance(c).powi(2) / even).sum();
    }
    Spread { counts, deviation, chi_square }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 0.5), Some(50));
        assert_eq!(percentile(&hundred, 0.95), Some(95));
        assert_eq!(percentile(&hundred, 1.0), Some(100));
        assert_eq!(percentile(&[7], 0.99), Some(7));
        assert_eq!(percentile(&[1, 2, 3], 0.0), Some(1));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn a_server_that_gets_nothing_is_seen() {
        let even = spread(["a", "b"], ["a", "b", "a", "b"]);
        assert_eq!((even.deviation, even.chi_square), (0.0, 0.0));
        let one = spread(["a", "b"], ["a", "a", "a", "a"]);
        assert_eq!((one.deviation, one.chi_square), (1.0, 4.0));
        let uneven = spread(["a", "b"], ["a", "a", "a", "b"]);
        assert_eq!((uneven.deviation, uneven.chi_square), (0.5, 1.0));
        assert_eq!(spread(["a"], ["stranger"]).counts.len(), 2);
        assert_eq!(spread(["a", "b"], []).deviation, 0.0);
    }
}

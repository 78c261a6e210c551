//! What waits to be fetched once: authorization codes and device codes. In memory, short-lived,
//! bounded: when full, the oldest goes.

use super::scope::Grant;
use rand::distr::{Alphanumeric, SampleString};
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Lifetime of an authorization code, as Entra's.
const CODE_LIFETIME: Duration = Duration::from_secs(600);
/// Lifetime of a device code, as Entra's.
pub(super) const DEVICE_LIFETIME: Duration = Duration::from_secs(900);
/// Most codes of a kind that are kept.
const CAPACITY: usize = 4096;
/// Letters of a user code: none that look alike.
const USER_CODE_ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Entries with a common lifetime, oldest first.
struct Expiring<T> {
    entries: HashMap<String, (T, Instant)>,
    order: VecDeque<String>,
    lifetime: Duration,
}

impl<T> Expiring<T> {
    fn new(lifetime: Duration) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), lifetime }
    }
    fn insert(&mut self, key: String, value: T) {
        while let Some(oldest) = self.order.front() {
            let stale = self.entries.get(oldest).is_none_or(|(_, born)| born.elapsed() >= self.lifetime);
            if !stale && self.order.len() < CAPACITY {
                break;
            }
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
        self.order.push_back(key.clone());
        self.entries.insert(key, (value, Instant::now()));
    }
    /// The entry and whether its time is over.
    fn get_mut(&mut self, key: &str) -> Option<(&mut T, bool)> {
        let lifetime = self.lifetime;
        self.entries.get_mut(key).map(|(value, born)| (value, born.elapsed() >= lifetime))
    }
}

fn random() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 64)
}

/// A proof key that the token request must know (RFC 7636).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Plain(String),
    Sha256(String),
}

/// What an authorization code stands for.
#[derive(Clone, Debug)]
pub(super) struct Authorized {
    pub client: Uuid,
    pub redirect_uri: String,
    pub user: Uuid,
    pub sid: Uuid,
    pub scope: String,
    pub grant: Grant,
    pub nonce: Option<String>,
    pub challenge: Option<Challenge>,
}

/// Outcome of redeeming a code.
pub(super) enum Redeemed<T> {
    Now(T),
    Before,
    Expired,
    Unknown,
}

/// Authorization codes not yet redeemed, and those redeemed lately.
pub(super) struct Codes(parking_lot::Mutex<Expiring<Option<Authorized>>>);

impl Default for Codes {
    fn default() -> Self {
        Self(parking_lot::Mutex::new(Expiring::new(CODE_LIFETIME)))
    }
}

impl Codes {
    /// A fresh code.
    pub(super) fn issue(&self, authorized: Authorized) -> String {
        let code = format!("1.{}", random());
        self.0.lock().insert(code.clone(), Some(authorized));
        code
    }
    /// Takes what a code stands for; it can be taken once.
    pub(super) fn redeem(&self, code: &str) -> Redeemed<Authorized> {
        match self.0.lock().get_mut(code) {
            None => Redeemed::Unknown,
            Some((_, true)) => Redeemed::Expired,
            Some((entry, false)) => entry.take().map_or(Redeemed::Before, Redeemed::Now),
        }
    }
}

/// How far a device's sign-in is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DeviceState {
    Pending,
    Approved { user: Uuid, sid: Uuid },
    Declined,
    Redeemed,
}

/// A device that waits for its user.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub client: Uuid,
    pub user_code: String,
    pub scope: String,
    pub grant: Grant,
    pub state: DeviceState,
}

/// Device codes.
pub(super) struct Devices(parking_lot::Mutex<Expiring<Device>>);

impl Default for Devices {
    fn default() -> Self {
        Self(parking_lot::Mutex::new(Expiring::new(DEVICE_LIFETIME)))
    }
}

impl Devices {
    /// A fresh device code and user code.
    pub(super) fn issue(&self, client: Uuid, scope: &str, grant: Grant) -> (String, String) {
        let device_code = random();
        let mut devices = self.0.lock();
        let taken = |code: &str| devices.entries.values().any(|(device, _)| device.user_code == code);
        let user_code = loop {
            let letters = (0..9).map(|_| USER_CODE_ALPHABET[usize::from(rand::random::<u8>()) & 31] as char);
            let code: String = letters.collect();
            if !taken(&code) {
                break code;
            }
        };
        let device = Device {
            client,
            user_code: user_code.clone(),
            scope: scope.to_owned(),
            grant,
            state: DeviceState::Pending,
        };
        devices.insert(device_code.clone(), device);
        (device_code, user_code)
    }

    /// The client that waits under a user code, if its code is still open.
    pub(super) fn waiting(&self, user_code: &str) -> Option<Uuid> {
        self.change(user_code, |_| ())
    }

    /// Approves or declines an open user code; `None` if there is none.
    pub(super) fn settle(&self, user_code: &str, state: DeviceState) -> Option<Uuid> {
        self.change(user_code, |device| device.state = state)
    }

    fn change(&self, user_code: &str, change: impl FnOnce(&mut Device)) -> Option<Uuid> {
        let wanted = user_code.trim().to_ascii_uppercase();
        let mut devices = self.0.lock();
        let lifetime = devices.lifetime;
        let (device, _) = devices.entries.values_mut().find(|(device, born)| {
            device.user_code == wanted && device.state == DeviceState::Pending && born.elapsed() < lifetime
        })?;
        change(device);
        Some(device.client)
    }

    /// What the polling device gets; an approved sign-in is handed out once, to its client.
    pub(super) fn poll(&self, device_code: &str, client: Uuid) -> Redeemed<Device> {
        match self.0.lock().get_mut(device_code) {
            Some((device, expired)) if device.client == client => match (&device.state, expired) {
                (DeviceState::Redeemed, _) => Redeemed::Before,
                (_, true) => Redeemed::Expired,
                (DeviceState::Approved { .. }, false) => {
                    let answer = device.clone();
                    device.state = DeviceState::Redeemed;
                    Redeemed::Now(answer)
                }
                (DeviceState::Pending | DeviceState::Declined, false) => Redeemed::Now(device.clone()),
            },
            _ => Redeemed::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_oldest_goes() {
        let mut map = Expiring::new(Duration::from_secs(60));
        for n in 0..CAPACITY + 10 {
            map.insert(n.to_string(), n);
        }
        assert_eq!((map.entries.len(), map.order.len()), (CAPACITY, CAPACITY));
        assert!(map.get_mut("9").is_none());
        assert!(map.get_mut("10").is_some());
    }

    #[test]
    fn what_is_over_is_dropped() {
        let mut map = Expiring::new(Duration::ZERO);
        map.insert("a".into(), 1);
        assert!(map.get_mut("a").is_some_and(|(_, expired)| expired));
        map.insert("b".into(), 2);
        assert!(map.get_mut("a").is_none());
    }
}

//! Presets of three settings for a kind of network (`--profile`). What is given in its own right goes before them.

/// A kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// Wires that rarely fail: few retries, short timeouts, rare checks.
    Stable,
    /// Links that come and go: more and longer tries.
    Unstable,
    /// Machines that move: frequent checks.
    Mobile,
}

/// The name, then `max-retries`, `timeout` and `health-check-interval` of each.
const PRESETS: [(&str, Profile, [&str; 3]); 3] = [
    ("stable", Profile::Stable, ["2", "2.0", "30"]),
    ("unstable", Profile::Unstable, ["5", "5.0", "15"]),
    ("mobile", Profile::Mobile, ["3", "4.0", "8"]),
];

impl Profile {
    pub(super) fn named(name: &str) -> Result<Self, String> {
        let found = PRESETS.iter().find(|(known, ..)| *known == name);
        found
            .map(|(_, profile, _)| *profile)
            .ok_or_else(|| format!("{} is no profile: it is stable, unstable or mobile", super::values::quoted(name)))
    }

    /// What the profile has for that setting, as it would stand behind the flag.
    pub(super) fn preset(self, key: &str) -> Option<&'static str> {
        let (.., values) = PRESETS.iter().find(|(_, profile, _)| *profile == self)?;
        match key {
            "max-retries" => Some(values[0]),
            "timeout" => Some(values[1]),
            "health-check-interval" => Some(values[2]),
            _ => None,
        }
    }
}

//! `--feature-gates=Name=true,…`: etcd's switches for what isn't settled yet.

use super::value::{self, BadValue};

/// How settled a feature is; decides its default and its label in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for.
    Alpha,
    /// On unless refused.
    Beta,
}

/// The switches of etcd 3.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Compare hashes at compactions.
    CompactHashCheck,
    /// Renew leases without waiting for the apply.
    FastLeaseKeepAlive,
    /// Compare with the other members before serving.
    InitialCorruptCheck,
    /// Write down the remaining time of leases.
    LeaseCheckpoint,
    /// Keep that over a change of leader.
    LeaseCheckpointPersist,
    /// Prefer certain requests under load.
    PriorityRequest,
    /// Dial peers from the advertised address.
    SetMemberLocalAddr,
    /// Stop gRPC while defragmenting.
    StopGrpcServiceOnDefrag,
    /// Let writing transactions share a read buffer.
    TxnModeWriteWithSharedBuffer,
}

/// Name, gate, stage; the order of the enum.
pub const GATES: [(&str, Gate, Stage); 9] = [
    ("CompactHashCheck", Gate::CompactHashCheck, Stage::Alpha),
    ("FastLeaseKeepAlive", Gate::FastLeaseKeepAlive, Stage::Beta),
    ("InitialCorruptCheck", Gate::InitialCorruptCheck, Stage::Alpha),
    ("LeaseCheckpoint", Gate::LeaseCheckpoint, Stage::Alpha),
    ("LeaseCheckpointPersist", Gate::LeaseCheckpointPersist, Stage::Alpha),
    ("PriorityRequest", Gate::PriorityRequest, Stage::Alpha),
    ("SetMemberLocalAddr", Gate::SetMemberLocalAddr, Stage::Alpha),
    ("StopGRPCServiceOnDefrag", Gate::StopGrpcServiceOnDefrag, Stage::Alpha),
    ("TxnModeWriteWithSharedBuffer", Gate::TxnModeWriteWithSharedBuffer, Stage::Beta),
];

impl Gate {
    /// Whether rusd does what the gate stands for. It has no switch for any of them: renewals never wait
    /// for the log, and what is left of a lease is always written down; the others aren't built.
    pub const fn is_in_force(self) -> bool {
        matches!(self, Self::FastLeaseKeepAlive | Self::LeaseCheckpoint | Self::LeaseCheckpointPersist)
    }
}

/// Which gates were asked to be open or shut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    asked: [Option<bool>; GATES.len()],
}

impl FeatureGates {
    /// Reads `Name=true,Name=false`; `AllAlpha` and `AllBeta` stand for their stage.
    ///
    /// # Errors
    /// On a name that isn't known, or a value that isn't a boolean.
    pub fn parse(text: &str) -> Result<Self, BadValue> {
        let mut gates = Self::default();
        let mut single = Vec::new();
        for item in value::list(text) {
            let (name, open) = item.split_once('=').ok_or_else(|| BadValue::new(&item, "Name=true"))?;
            let open = value::boolean(open)?;
            match name {
                "AllAlpha" => gates.set_stage(Stage::Alpha, open),
                "AllBeta" => gates.set_stage(Stage::Beta, open),
                _ => {
                    let at = GATES.iter().position(|(known, ..)| *known == name).ok_or_else(|| {
                        let known: Vec<_> = GATES.iter().map(|(known, ..)| *known).collect();
                        BadValue::new(name, format!("one of {}", known.join(", ")))
                    })?;
                    single.push((at, open));
                }
            }
        }
        // A gate named by itself wins over its stage, in whatever order they stand.
        for (at, open) in single {
            gates.asked[at] = Some(open);
        }
        Ok(gates)
    }

    fn set_stage(&mut self, stage: Stage, open: bool) {
        for (at, (_, _, of)) in GATES.iter().enumerate() {
            if *of == stage {
                self.asked[at] = Some(open);
            }
        }
    }

    /// What the gate was asked to be, if it was named.
    pub fn asked(&self, gate: Gate) -> Option<bool> {
        self.asked[gate as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_follows_the_enum() {
        for (at, (_, gate, _)) in GATES.iter().enumerate() {
            assert_eq!(*gate as usize, at);
        }
    }

    #[test]
    fn a_named_gate_wins_over_its_stage() {
        let gates = FeatureGates::parse("LeaseCheckpoint=false,AllAlpha=true").expect("known");
        assert_eq!(gates.asked(Gate::LeaseCheckpoint), Some(false));
        assert_eq!(gates.asked(Gate::CompactHashCheck), Some(true));
        assert_eq!(gates.asked(Gate::FastLeaseKeepAlive), None);
    }

    #[test]
    fn an_unknown_gate_is_refused() {
        assert!(FeatureGates::parse("Nope=true").is_err());
        assert!(FeatureGates::parse("LeaseCheckpoint").is_err());
        assert!(FeatureGates::parse("LeaseCheckpoint=maybe").is_err());
    }
}

//! `Watchers`: the watchers of one stream, their ids, and the groups that they form.

use std::collections::HashMap;

use super::super::index::GroupKey;
use super::super::request::CreateWatch;

/// Where a watcher gets its next event from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// From the mailbox: every event of its group from `next` on is there or will be.
    Live,
    /// From history.
    Behind,
    /// From nowhere: its history was compacted and the client was told. Its id stays taken and progress requests
    /// stay unanswered until the client cancels it, as in etcd (E94).
    Compacted,
}

/// One watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) id: i64,
    serial: u64,
    pub(super) group: u32,
    state: State,
    /// Its place in its group's list while it is live.
    live_at: u32,
    /// The start revision asked for; progress isn't spoken of below it.
    pub(super) start: i64,
    /// The lowest revision not yet sent; what is below is skipped. Only grows.
    pub(super) next: i64,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
    pub(super) progress_notify: bool,
    /// No event since the last progress interval began.
    pub(super) quiet: bool,
    range_bytes: usize,
}

impl Watcher {
    pub(super) fn state(&self) -> State {
        self.state
    }
}

/// A watcher as work under way remembers it: it may be cancelled meanwhile and its slot taken by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    slot: u32,
    serial: u64,
}

/// Watchers of this stream that watch the same.
#[derive(Debug)]
pub(super) struct LocalGroup {
    pub(super) key: GroupKey,
    /// The group's number in the hub while the stream is in it.
    pub(super) hub: Option<u32>,
    pub(super) live: Vec<u32>,
    watchers: usize,
}

/// All of a stream's watchers.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    slots: Vec<Option<Watcher>>,
    free: Vec<u32>,
    by_id: HashMap<i64, u32>,
    groups: Vec<Option<LocalGroup>>,
    groups_free: Vec<u32>,
    group_by_key: HashMap<GroupKey, u32>,
    group_by_hub: HashMap<u32, u32>,
    next_auto_id: i64,
    serials: u64,
    behind: usize,
    compacted: usize,
    range_bytes: usize,
}

impl Watchers {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Watchers that read history.
    pub(super) fn behind(&self) -> usize {
        self.behind
    }

    /// Watchers whose history is gone.
    pub(super) fn compacted(&self) -> usize {
        self.compacted
    }

    /// Bytes of keys and range ends held.
    pub(super) fn range_bytes(&self) -> usize {
        self.range_bytes
    }

    /// The id for a new watcher, or `None` if the wished one is taken (E81: 0 lets the server choose, counting up
    /// from 0 over the ids that are in use; any other value, also a negative one, is the client's choice).
    pub(super) fn choose_id(&mut self, wished: i64) -> Option<i64> {
        if wished != 0 {
            return (!self.by_id.contains_key(&wished)).then_some(wished);
        }
        while self.by_id.contains_key(&self.next_auto_id) {
            self.next_auto_id += 1;
        }
        self.next_auto_id += 1;
        Some(self.next_auto_id - 1)
    }

    /// Adds a watcher under a free id. It is behind until it is made live.
    pub(super) fn add(&mut self, id: i64, key: GroupKey, create: &CreateWatch) -> Target {
        let range_bytes = key.range.start.len() + key.range.wire_end().len();
        let group = self.local_group(key);
        if let Some(Some(group)) = self.groups.get_mut(group as usize) {
            group.watchers += 1;
        }
        self.serials += 1;
        let watcher = Watcher {
            id,
            serial: self.serials,
            group,
            state: State::Behind,
            live_at: 0,
            start: create.start_revision,
            next: create.start_revision,
            prev_kv: create.prev_kv,
            fragment: create.fragment,
            progress_notify: create.progress_notify,
            quiet: true,
            range_bytes,
        };
        self.behind += 1;
        self.range_bytes += range_bytes;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(watcher);
                slot
            }
            None => {
                self.slots.push(Some(watcher));
                (self.slots.len() - 1) as u32
            }
        };
        self.by_id.insert(id, slot);
        Target { slot, serial: self.serials }
    }

    fn local_group(&mut self, key: GroupKey) -> u32 {
        if let Some(group) = self.group_by_key.get(&key) {
            return *group;
        }
        let group = Some(LocalGroup { key: key.clone(), hub: None, live: Vec::new(), watchers: 0 });
        let at = match self.groups_free.pop() {
            Some(at) => {
                self.groups[at as usize] = group;
                at
            }
            None => {
                self.groups.push(group);
                (self.groups.len() - 1) as u32
            }
        };
        self.group_by_key.insert(key, at);
        at
    }

    /// Takes the watcher with this id away; whether there was one.
    pub(super) fn remove(&mut self, id: i64) -> bool {
        let Some(slot) = self.by_id.remove(&id) else { return false };
        let Some(watcher) = self.slots[slot as usize].take() else { return false };
        self.free.push(slot);
        self.range_bytes -= watcher.range_bytes;
        match watcher.state {
            State::Live => self.drop_live(watcher.group, watcher.live_at),
            State::Behind => self.behind -= 1,
            State::Compacted => self.compacted -= 1,
        }
        if let Some(Some(group)) = self.groups.get_mut(watcher.group as usize) {
            group.watchers -= 1;
        }
        self.drop_group_if_unused(watcher.group);
        true
    }

    fn drop_live(&mut self, group: u32, at: u32) {
        let Some(Some(group)) = self.groups.get_mut(group as usize) else { return };
        group.live.swap_remove(at as usize);
        let moved = group.live.get(at as usize).copied();
        if let Some(Some(watcher)) = moved.and_then(|slot| self.slots.get_mut(slot as usize)) {
            watcher.live_at = at;
        }
    }

    fn drop_group_if_unused(&mut self, at: u32) {
        let Some(slot) = self.groups.get_mut(at as usize) else { return };
        if slot.as_ref().is_some_and(|group| group.watchers == 0 && group.hub.is_none())
            && let Some(group) = slot.take()
        {
            self.group_by_key.remove(&group.key);
            self.groups_free.push(at);
        }
    }

    /// Moves a watcher to another state.
    pub(super) fn set_state(&mut self, target: Target, state: State) {
        let Some(watcher) = self.get_mut(target) else { return };
        let (before, group, live_at) = (watcher.state, watcher.group, watcher.live_at);
        if before == state {
            return;
        }
        watcher.state = state;
        match before {
            State::Live => self.drop_live(group, live_at),
            State::Behind => self.behind -= 1,
            State::Compacted => self.compacted -= 1,
        }
        match state {
            State::Live => self.push_live(group, target),
            State::Behind => self.behind += 1,
            State::Compacted => self.compacted += 1,
        }
    }

    fn push_live(&mut self, group: u32, target: Target) {
        let Some(Some(group)) = self.groups.get_mut(group as usize) else { return };
        group.live.push(target.slot);
        let at = (group.live.len() - 1) as u32;
        if let Some(watcher) = self.get_mut(target) {
            watcher.live_at = at;
        }
    }

    /// The watcher, unless it was cancelled since.
    pub(super) fn get(&self, target: Target) -> Option<&Watcher> {
        self.slots.get(target.slot as usize)?.as_ref().filter(|watcher| watcher.serial == target.serial)
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, target: Target) -> Option<&mut Watcher> {
        self.slots.get_mut(target.slot as usize)?.as_mut().filter(|watcher| watcher.serial == target.serial)
    }

    /// Every watcher.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Watcher> {
        self.slots.iter().flatten()
    }

    /// Every watcher, to change it.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Watcher> {
        self.slots.iter_mut().flatten()
    }

    /// Those that are live, with their places.
    pub(super) fn live_targets(&self) -> Vec<Target> {
        let live = |(slot, watcher): (usize, &Option<Watcher>)| {
            let watcher = watcher.as_ref().filter(|watcher| watcher.state == State::Live)?;
            Some(Target { slot: slot as u32, serial: watcher.serial })
        };
        self.slots.iter().enumerate().filter_map(live).collect()
    }

    /// The group at a local place.
    pub(super) fn group(&self, at: u32) -> Option<&LocalGroup> {
        self.groups.get(at as usize)?.as_ref()
    }

    /// Live watchers of a group of the hub, and whether any of them wants previous pairs.
    pub(super) fn live_in_hub_group(&self, hub: u32) -> Option<(smallvec::SmallVec<[Target; 1]>, bool)> {
        let group = self.group(*self.group_by_hub.get(&hub)?)?;
        let mut prev_kv = false;
        let target = |slot: &u32| {
            let watcher = self.slots.get(*slot as usize)?.as_ref()?;
            prev_kv |= watcher.prev_kv;
            Some(Target { slot: *slot, serial: watcher.serial })
        };
        let targets = group.live.iter().filter_map(target).collect();
        Some((targets, prev_kv))
    }

    /// Remembers that the stream is in the hub's group.
    pub(super) fn set_hub(&mut self, at: u32, hub: u32) {
        if let Some(Some(group)) = self.groups.get_mut(at as usize) {
            group.hub = Some(hub);
            self.group_by_hub.insert(hub, at);
        }
    }

    /// Forgets the hub's groups that no live watcher is in, and returns them: the stream has to leave them.
    pub(super) fn take_idle_hub_groups(&mut self) -> Vec<u32> {
        let mut idle = Vec::new();
        for at in 0..self.groups.len() as u32 {
            idle.extend(self.take_hub_if_idle(at));
        }
        idle
    }

    /// The same for one group.
    pub(super) fn take_hub_if_idle(&mut self, at: u32) -> Option<u32> {
        let group = self.groups.get_mut(at as usize)?.as_mut()?;
        if !group.live.is_empty() {
            return None;
        }
        let hub = group.hub.take();
        if let Some(hub) = hub {
            self.group_by_hub.remove(&hub);
        }
        self.drop_group_if_unused(at);
        hub
    }

    /// All groups of the hub that the stream is in.
    pub(super) fn hub_groups(&self) -> impl Iterator<Item = u32> {
        self.group_by_hub.keys().copied()
    }

    /// The local group of the watcher with this id.
    pub(super) fn group_of(&self, id: i64) -> Option<u32> {
        let slot = self.by_id.get(&id)?;
        self.slots.get(*slot as usize)?.as_ref().map(|watcher| watcher.group)
    }
}

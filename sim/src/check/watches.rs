//! Promise 3: a watcher gets every event of its range from its start on, once, in revision order, a
//! revision's events together; progress never overtakes events; the end has its reason.

use bytes::Bytes;

use crate::ledger::{Change, Ledger};

/// One watcher, held against the ledger as its answers come. It lives on over new streams at other members.
#[derive(Clone, Debug)]
pub struct Watcher {
    prefix: Bytes,
    /// The first revision whose events are not known to be delivered; `None` before the first answer.
    next: Option<i64>,
}

impl Watcher {
    /// A watcher of the keys with a prefix, from a revision on, or from now on.
    pub fn new(prefix: Bytes, start: Option<i64>) -> Self {
        Self { prefix, next: start }
    }

    /// From where a new stream has to go on; 0 is from now on.
    pub fn resume(&self) -> i64 {
        self.next.unwrap_or(0)
    }

    /// What it watches.
    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// The stream has begun at this revision.
    pub fn created(&mut self, header: i64) {
        self.next.get_or_insert(header + 1);
    }

    /// Changes came, each with its revision.
    ///
    /// # Errors
    /// What is missing, doubled, out of order or other than it was.
    pub fn events(&mut self, events: &[(i64, Change)], ledger: &Ledger) -> Result<(), String> {
        for group in events.chunk_by(|(a, _), (b, _)| a == b) {
            let (revision, _) = group[0];
            let next = self.next.ok_or("events before the stream was created")?;
            if revision < next {
                return Err(format!("revision {revision} again, or out of order: {next} is next"));
            }
            self.nothing_between(next, revision, ledger)?;
            let block = ledger.block(revision).ok_or_else(|| format!("revision {revision} was never published"))?;
            let expected = block.changes.iter().filter(|change| change.key().starts_with(&self.prefix));
            if !group.iter().map(|(_, change)| change).eq(expected) {
                return Err(format!("revision {revision} came as {group:?} and is {:?}", block.changes));
            }
            self.next = Some(revision + 1);
        }
        Ok(())
    }

    /// The stream says that all up to this revision has come.
    ///
    /// # Errors
    /// What has not.
    pub fn progress(&mut self, revision: i64, ledger: &Ledger) -> Result<(), String> {
        let Some(next) = self.next else { return Ok(()) };
        self.nothing_between(next, revision + 1, ledger)?;
        self.next = Some(next.max(revision + 1));
        Ok(())
    }

    /// The stream was cancelled because history up to this revision is gone: it goes on from there.
    ///
    /// # Errors
    /// What it wanted is not gone.
    pub fn compacted(&mut self, compact: i64) -> Result<(), String> {
        match self.next {
            Some(next) if next < compact => {
                self.next = Some(compact);
                Ok(())
            }
            next => Err(format!("cancelled by a compaction at {compact}, though {next:?} was next")),
        }
    }

    /// At the end, when everything has been delivered that will be.
    ///
    /// # Errors
    /// What has not.
    pub fn end(&self, ledger: &Ledger) -> Result<(), String> {
        self.next.map_or(Ok(()), |next| self.nothing_between(next, ledger.top() + 1, ledger))
    }

    fn nothing_between(&self, from: i64, to: i64, ledger: &Ledger) -> Result<(), String> {
        let hit = |change: &Change| change.key().starts_with(&self.prefix);
        let missed = ledger.from(from).take_while(|(revision, _)| *revision < to);
        match missed.into_iter().find(|(_, block)| block.changes.iter().any(hit)) {
            Some((revision, block)) => Err(format!("a gap: revision {revision} never came: {:?}", block.changes)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::{kv, ledger};

    fn all() -> Vec<(i64, Change)> {
        let ledger = ledger();
        ledger.from(0).flat_map(|(revision, block)| block.changes.iter().map(move |c| (revision, c.clone()))).collect()
    }

    fn watcher() -> Watcher {
        Watcher::new(Bytes::new(), Some(2))
    }

    #[test]
    fn what_comes_whole_and_in_order_passes() {
        let mut watcher = watcher();
        watcher.events(&all(), &ledger()).unwrap();
        watcher.end(&ledger()).unwrap();
        let mut narrow = Watcher::new(Bytes::from_static(b"b"), Some(2));
        narrow.progress(3, &ledger()).unwrap();
        narrow.events(&all()[2..3], &ledger()).unwrap();
        narrow.end(&ledger()).unwrap();
    }

    #[test]
    fn a_gap_is_found() {
        assert!(watcher().events(&all()[1..], &ledger()).unwrap_err().contains("gap"));
        let mut late = watcher();
        late.events(&all()[..2], &ledger()).unwrap();
        assert!(late.end(&ledger()).unwrap_err().contains("gap"));
    }

    #[test]
    fn an_event_twice_or_out_of_order_is_found() {
        let mut watcher = watcher();
        watcher.events(&all()[..2], &ledger()).unwrap();
        assert!(watcher.events(&all()[1..2], &ledger()).unwrap_err().contains("again"));
    }

    #[test]
    fn another_event_than_the_one_that_happened_is_found() {
        let other = (2, Change::Put(kv("a", "9", 2, 2, 1)));
        assert!(watcher().events(&[other], &ledger()).unwrap_err().contains("came as"));
    }

    #[test]
    fn progress_that_overtakes_events_is_found() {
        assert!(watcher().progress(2, &ledger()).unwrap_err().contains("gap"));
    }

    #[test]
    fn a_compaction_is_a_reason_only_below_it() {
        assert!(watcher().compacted(2).is_err());
        let mut watcher = watcher();
        watcher.compacted(4).unwrap();
        watcher.events(&all()[2..], &ledger()).unwrap();
    }

    #[test]
    fn from_now_on_begins_after_the_created_answer() {
        let mut watcher = Watcher::new(Bytes::new(), None);
        watcher.created(3);
        watcher.events(&all()[2..], &ledger()).unwrap();
    }
}

//! How each side ended, and what that means for the other: decided here and nowhere else.
//! Never frees anything.

use crate::error::SpillError;

#[derive(Debug)]
enum WriterEnd {
    Open,
    Finished,
    /// Its own `fail` or `abort`, its drop, or a write that could not be stored.
    Failed(SpillError),
}

#[derive(Debug)]
enum ReaderEnd {
    Open,
    /// Dropped or cancelled.
    Gone(SpillError),
    /// Met by data that cannot be read back: at that offset, whatever comes behind it.
    Fault(SpillError),
}

/// The first terminal event wins on each side.
#[derive(Debug)]
pub(crate) struct Ends {
    writer: WriterEnd,
    reader: ReaderEnd,
}

/// What the reader meets behind the last byte.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// More may come.
    Open,
    Finished,
    Failed(SpillError),
}

impl Ends {
    pub(crate) fn new() -> Self {
        Self { writer: WriterEnd::Open, reader: ReaderEnd::Open }
    }

    /// Whether a byte may be accepted; else why not.
    #[inline]
    pub(crate) fn check_write(&self) -> Result<(), SpillError> {
        match (&self.writer, &self.reader) {
            (WriterEnd::Failed(error), _) | (WriterEnd::Open, ReaderEnd::Gone(error) | ReaderEnd::Fault(error)) => {
                Err(error.clone())
            }
            (WriterEnd::Finished, _) => Err(SpillError::Finished),
            (WriterEnd::Open, ReaderEnd::Open) => Ok(()),
        }
    }

    /// What `flush` says: a failure repeats, an end does not.
    pub(crate) fn check_flush(&self) -> Result<(), SpillError> {
        match self.check_write() {
            Err(SpillError::Finished) => Ok(()),
            other => other,
        }
    }

    /// Whether the reader may go on; else why not.
    #[inline]
    pub(crate) fn check_read(&self) -> Result<(), SpillError> {
        match (&self.reader, &self.writer) {
            (ReaderEnd::Open, _) => Ok(()),
            // That of the writer came first, or it would not have been taken.
            (ReaderEnd::Gone(_), WriterEnd::Failed(error)) | (ReaderEnd::Gone(error) | ReaderEnd::Fault(error), _) => {
                Err(error.clone())
            }
        }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match &self.writer {
            WriterEnd::Open => Outcome::Open,
            WriterEnd::Finished => Outcome::Finished,
            WriterEnd::Failed(error) => Outcome::Failed(error.clone()),
        }
    }

    /// `finish`: says again what has happened before it.
    pub(crate) fn finish(&mut self) -> Result<(), SpillError> {
        match self.check_write() {
            Ok(()) => {
                self.writer = WriterEnd::Finished;
                Ok(())
            }
            Err(SpillError::Finished) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The writer's side fails; the error comes back where an earlier end of either side stands.
    pub(crate) fn fail_writer(&mut self, error: SpillError) -> Result<(), SpillError> {
        if self.check_write().is_err() {
            return Err(error);
        }
        self.writer = WriterEnd::Failed(error);
        Ok(())
    }

    /// The reader's side ends; the error comes back where it had ended before.
    pub(crate) fn end_reader(&mut self, error: SpillError) -> Result<(), SpillError> {
        if !matches!(self.reader, ReaderEnd::Open) {
            return Err(error);
        }
        self.reader = match error {
            SpillError::Storage { .. } | SpillError::Corrupt { .. } => ReaderEnd::Fault(error),
            error => ReaderEnd::Gone(error),
        };
        Ok(())
    }

    /// Whether neither side has ended.
    #[inline]
    pub(crate) fn are_open(&self) -> bool {
        self.writer_is_open() && !self.reader_is_gone()
    }

    /// Whether the writer said that this is the end.
    #[inline]
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.writer, WriterEnd::Finished)
    }

    #[inline]
    pub(crate) fn writer_is_open(&self) -> bool {
        matches!(self.writer, WriterEnd::Open)
    }

    #[inline]
    pub(crate) fn reader_is_gone(&self) -> bool {
        !matches!(self.reader, ReaderEnd::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c07_the_first_terminal_event_wins() {
        let mut ends = Ends::new();
        ends.fail_writer(SpillError::writer_failed("one")).unwrap();
        ends.fail_writer(SpillError::writer_failed("two")).unwrap_err();
        assert!(matches!(ends.finish(), Err(SpillError::WriterFailed { cause }) if cause.to_string() == "one"));

        let mut ends = Ends::new();
        ends.finish().unwrap();
        ends.fail_writer(SpillError::WriterDropped).unwrap_err();
        assert!(matches!(ends.outcome(), Outcome::Finished));
        ends.finish().unwrap();
    }

    #[test]
    fn c07_the_readers_end_is_told_by_every_call_of_the_writer() {
        let mut ends = Ends::new();
        ends.end_reader(SpillError::ReaderDropped).unwrap();
        for _ in 0..2 {
            assert!(matches!(ends.check_write(), Err(SpillError::ReaderDropped)));
            assert!(matches!(ends.check_flush(), Err(SpillError::ReaderDropped)));
            assert!(matches!(ends.finish(), Err(SpillError::ReaderDropped)));
        }
    }
}

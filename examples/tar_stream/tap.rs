//! Counts and hashes the bytes that go by, on the way in and on the way out.

use std::fmt::Write as _;

use sha2::{Sha256, digest::Output};
use spillbuffer::pipeline::{Key, Pipeline, Report};
use spillbuffer::transform::{Counter, Digest};

/// Two stages of a pipeline, whose values are in its report.
pub(crate) struct Tap {
    bytes: Key<u64>,
    sha256: Key<Output<Sha256>>,
}

/// What went through a [`Tap`].
#[derive(PartialEq)]
pub(crate) struct Tapped {
    pub bytes: u64,
    pub sha256: String,
}

impl Tap {
    pub(crate) fn on(pipeline: &mut Pipeline<'_>) -> Self {
        let bytes = pipeline.stage("count", Counter::new(None).0);
        Self { bytes, sha256: pipeline.stage("sha256", Digest::<Sha256>::new()) }
    }

    /// Of a pipeline that has come to its end.
    pub(crate) fn tapped(&self, mut report: Report) -> Tapped {
        let bytes = report.take(self.bytes).expect("a count, at the end");
        let sha256 = report.take(self.sha256).expect("a digest, at the end");
        Tapped { bytes, sha256: hex(&sha256) }
    }
}

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

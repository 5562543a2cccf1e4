//! The end of a pipeline, clean or not: what is told, what is kept, what is handed out. In one place for every way to drive one.
//! Never resolves before what was held is released.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    chain::Leavings,
    error::{Cause, Failure, Fault, Interrupted, PipelineError},
    live::Live,
    report::{Outcome, Report, Values},
};

/// What has failed, first what counts.
pub(super) struct Faults {
    pub(super) first: Fault,
    rest: Vec<Fault>,
}

impl Faults {
    /// Of several the first real cause: what only follows from another's end yields to it.
    pub(super) fn of(
        fault: Fault,
        live: &Live,
        cx: &mut Context<'_>,
        look: impl FnOnce(&mut Context<'_>, Option<usize>) -> Vec<Fault>,
    ) -> Self {
        if !fault.is_consequence() {
            return Self { first: fault, rest: Vec::new() };
        }
        // Cancelled since that was asked: whoever did so may have closed a connection next.
        if let Poll::Ready(cancelled) = poll_stopped(live, cx) {
            return Self { first: cancelled, rest: vec![fault] };
        }
        let mut rest = look(cx, fault.index);
        let Some(at) = rest.iter().position(|fault| !fault.is_consequence()) else {
            return Self { first: fault, rest };
        };
        let first = rest.remove(at);
        rest.insert(0, fault);
        Self { first, rest }
    }
}

/// A pipeline that has been settled.
pub(super) struct Settled {
    pub(super) live: Arc<Live>,
    pub(super) began: Option<Instant>,
    pub(super) outcome: Outcome,
    pub(super) faults: Option<Faults>,
    pub(super) leavings: Leavings,
}

impl Settled {
    /// What comes of it.
    pub(super) fn result(self) -> Result<Report, PipelineError> {
        let Self { live, began, outcome, faults, leavings } = self;
        live.rest_all();
        let name = |index: usize| live.name(index).to_owned();
        let failure = |fault: Fault| {
            let index = fault.index?;
            Some(Failure { stage: name(index), index, cause: fault.cause })
        };
        let mut values: Vec<_> = (0..live.len()).map(|_| None).collect();
        for (index, value) in leavings.values {
            if let Some(place) = values.get_mut(index) {
                *place = Some(value);
            }
        }
        let (first, rest) = faults.map_or((None, Vec::new()), |faults| (Some(faults.first), faults.rest));
        let report = Report {
            outcome,
            stages: live.report(),
            suppressed: rest.into_iter().chain(leavings.lost).filter_map(failure).collect(),
            elapsed: began.map_or(Duration::ZERO, |began| began.elapsed()),
            values: Values::new(values),
        };
        match first {
            None => Ok(report),
            Some(fault) => Err(PipelineError::new(fault.index.map(|index| (name(index), index)), fault.cause, report)),
        }
    }
}

/// What a pipeline that is dropped is failed with.
pub(super) fn dropped() -> Cause {
    Arc::new(if std::thread::panicking() { Interrupted::Panicked } else { Interrupted::Dropped })
}

/// Whether somebody outside has stopped it.
pub(super) fn poll_stopped(live: &Live, cx: &Context<'_>) -> Poll<Fault> {
    live.poll_cancelled(cx).map(|cause| Fault { index: None, cause })
}

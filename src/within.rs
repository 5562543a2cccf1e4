//! What wraps something of the user's, and gives it back. Never hides it.

/// Access to what an adapter wraps.
pub trait Within {
    /// What is wrapped.
    type Inner;

    /// What is wrapped.
    fn get_ref(&self) -> &Self::Inner;

    /// What is wrapped. To read or write past the adapter mixes up the stream.
    fn get_mut(&mut self) -> &mut Self::Inner;

    /// What is wrapped; what the adapter has read ahead or not yet written is dropped.
    fn into_inner(self) -> Self::Inner
    where
        Self: Sized;
}

/// For an adapter whose field is `inner`.
macro_rules! within {
    ($adapter:ident) => {
        impl<I> $crate::within::Within for $adapter<I> {
            type Inner = I;

            fn get_ref(&self) -> &I {
                &self.inner
            }

            fn get_mut(&mut self) -> &mut I {
                &mut self.inner
            }

            fn into_inner(self) -> I {
                self.inner
            }
        }
    };
}

pub(crate) use within;

//! What threads may do to one another, in whatever order they come: `src/interleavings.rs`, each scenario some hundred times
//! under each of shuttle's schedulers. `INTERLEAVINGS=100000` makes that more.
//!
//! The package that these come from has the library's own source, with shuttle's locks and threads in place of std's.

use spillbuffer_interleavings::interleavings;

macro_rules! scenarios {
    ($($name:ident)*) => { $( #[test] fn $name() { interleavings::$name(); } )* };
}

scenarios! {
    a_parked_reader_and_a_small_write
    a_parked_writer_and_the_last_freed_block
    a_parked_writer_and_a_chunk_that_comes_back
    the_clock_and_a_reader_that_stands_still
    the_clock_and_both_sides
    a_reader_and_what_is_read_ahead_of_it
    bursts_and_threads_that_are_about_to_go
    both_drops_and_jobs_in_flight
    an_end_from_a_third_thread
    a_look_and_an_abort
    both_sides_and_a_disk_that_is_full_now_and_then
    buffers_of_a_pool_and_its_last_block
    buffers_of_a_pool_and_its_last_slot
    buffers_of_a_pool_and_a_disk_that_is_full_now_and_then
    what_many_want_written_is_written_by_one
    a_first_block_and_those_who_give_theirs
    a_queue_whose_first_wants_none_and_wants_some_again
    a_buffer_that_goes_while_it_waits
    work_and_a_thread_that_is_about_to_go
    calls_and_a_clock_that_is_about_to_go
}

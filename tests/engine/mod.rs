//! Tests of the engine as a whole, most of them through the program: one module per property.

mod acts;
mod archives;
mod bad_input;
mod capabilities;
mod clouds;
mod crash;
mod cuts;
mod damage;
mod demo;
mod device;
mod durable;
mod expired;
mod format_doc;
mod golden;
mod hostile;
mod interop;
mod interrupt;
mod kept;
mod large_directory;
mod links;
mod locks;
#[cfg(feature = "mount")]
mod mount;
mod named;
mod one_name;
mod parent;
mod prune;
mod readers;
mod repair;
mod repositories;
#[cfg(feature = "mount")]
mod requests;
#[cfg(feature = "mount")]
mod restore_faults;
#[cfg(feature = "mount")]
mod restore_latency;
mod rewriting;
mod round_trips;
mod s3;
mod same_bytes;
mod shapes;
mod simulation;
mod sizes;
#[cfg(feature = "mount")]
mod slow_volume;
mod stopped;
mod volume;
mod work;

//! What a tenant may ask for: authorization, credentials of a backup location, repositories.

pub mod authorization;
pub mod border;
pub mod credentials;
pub mod rejected;
pub mod repository;

pub use rejected::Rejected;

//! The words of every flow, and what they are made of: stages, actions, names, sizes, advice.

pub mod advice;
pub mod flow;
pub mod names;
pub mod quantity;

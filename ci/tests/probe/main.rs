//! Probes of running machines: what they count is what happened, and machines do not notice.

mod attach;
mod count;
mod text;

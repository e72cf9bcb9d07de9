//! Requests of streams made by hand: every moment has its layer, whatever the order in which sources come, and what is not whole is
//! not shown.

mod odd;
mod plain;
mod scene;

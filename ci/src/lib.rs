//! A VM as a test fixture.

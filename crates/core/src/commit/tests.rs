//! Tests of the machine

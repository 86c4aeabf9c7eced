//! What a client may do: read, and say where to go. Nothing that it does changes the guest.

use super::{Debugger, Error, registers};
use crate::{memory::Tables, vm::Orders};
use gdbstub::{
    common::Signal,
    target::{
        Target, TargetError, TargetResult,
        ext::{
            base::{
                BaseOps,
                reverse_exec::{ReverseCont, ReverseContOps, ReverseStep, ReverseStepOps},
                singlethread::{
                    SingleThreadBase, SingleThreadRangeStepping, SingleThreadRangeSteppingOps,
                    SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep,
                    SingleThreadSingleStepOps,
                },
            },
            breakpoints::{
                Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, SwBreakpoint,
                SwBreakpointOps,
            },
            monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps, outputln},
        },
    },
};
use gdbstub_arch::x86::{X86_64_SSE, reg::X86_64CoreRegs};

/// Breakpoints at a time: each costs a write into the guest's code at every entry.
const BREAKPOINTS: usize = 256;
/// EFAULT, by gdb's numbers.
const FAULT: u8 = 14;
/// EPERM.
const NOT_PERMITTED: u8 = 1;

impl Target for Debugger {
    type Arch = X86_64_SSE;
    type Error = Error;

    fn base_ops(&mut self) -> BaseOps<'_, X86_64_SSE, Error> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

fn refuse<T>() -> TargetResult<T, Debugger> {
    tracing::warn!("the debugger's write is refused: a guest that is changed is no replay");
    Err(TargetError::Errno(NOT_PERMITTED))
}

impl SingleThreadBase for Debugger {
    fn read_registers(&mut self, to: &mut X86_64CoreRegs) -> TargetResult<(), Self> {
        let state = self.run.hold().and_then(|mut held| Ok(held.registers()?));
        *to = registers::of(&state.map_err(TargetError::Fatal)?);
        Ok(())
    }

    fn write_registers(&mut self, _: &X86_64CoreRegs) -> TargetResult<(), Self> {
        refuse()
    }

    fn read_addrs(&mut self, address: u64, to: &mut [u8]) -> TargetResult<usize, Self> {
        let state = self.run.hold().and_then(|mut held| Ok(held.registers()?));
        let state = state.map_err(TargetError::Fatal)?;
        let mut tables = Tables::new(state.sregs.cr3);
        match tables.read(self.run.vm.ram(), state.paged(), address, to) {
            0 if !to.is_empty() => Err(TargetError::Errno(FAULT)),
            read => Ok(read),
        }
    }

    fn write_addrs(&mut self, _: u64, _: &[u8]) -> TargetResult<(), Self> {
        refuse()
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadResume for Debugger {
    fn resume(&mut self, _: Option<Signal>) -> Result<(), Error> {
        let breakpoints = self.breakpoints.clone();
        let now = self.now()?.at.record;
        let until = self.until.filter(|until| *until > now);
        self.forward(Orders::Continue { breakpoints, until })
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<SingleThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }

    fn support_reverse_step(&mut self) -> Option<ReverseStepOps<'_, (), Self>> {
        Some(self)
    }

    fn support_reverse_cont(&mut self) -> Option<ReverseContOps<'_, (), Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Debugger {
    fn step(&mut self, _: Option<Signal>) -> Result<(), Error> {
        self.resume_range_step(0, 0)
    }
}

impl SingleThreadRangeStepping for Debugger {
    fn resume_range_step(&mut self, start: u64, end: u64) -> Result<(), Error> {
        let breakpoints = self.breakpoints.clone();
        self.forward(Orders::Step { within: start..end, breakpoints, until: None })
    }
}

impl ReverseCont<()> for Debugger {
    fn reverse_cont(&mut self) -> Result<(), Error> {
        self.search_back()
    }
}

impl ReverseStep<()> for Debugger {
    fn reverse_step(&mut self, (): ()) -> Result<(), Error> {
        self.step_back()
    }
}

impl Breakpoints for Debugger {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Debugger {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        // Code is mapped at its own address.
        let possible = address < self.run.vm.ram().size();
        if possible && !self.breakpoints.contains(&address) {
            if self.breakpoints.len() == BREAKPOINTS {
                return Ok(false);
            }
            self.breakpoints.push(address);
        }
        Ok(possible)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let before = self.breakpoints.len();
        self.breakpoints.retain(|other| *other != address);
        Ok(self.breakpoints.len() < before)
    }
}

impl HwBreakpoint for Debugger {
    fn add_hw_breakpoint(&mut self, address: u64, kind: usize) -> TargetResult<bool, Self> {
        self.add_sw_breakpoint(address, kind)
    }

    fn remove_hw_breakpoint(&mut self, address: u64, kind: usize) -> TargetResult<bool, Self> {
        self.remove_sw_breakpoint(address, kind)
    }
}

impl MonitorCmd for Debugger {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), Error> {
        let answer = self.monitor(&String::from_utf8_lossy(command))?;
        outputln!(out, "{answer}");
        Ok(())
    }
}

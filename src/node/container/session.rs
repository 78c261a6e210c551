//! Streams of exec and attach.

use super::{
    client::{Connection, io_error},
    containers::Container,
    wire::{Reply, ShimRequest},
};
use crate::runtime::{ContainerState, ExecSpec, RuntimeError, Session, SessionControl};
use async_trait::async_trait;
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
    sync::{Mutex, watch},
};

/// The daemon's end of a terminal.
struct Terminal {
    fd: Arc<AsyncFd<OwnedFd>>,
}

impl Terminal {
    fn open(master: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&master)?;
        // SAFETY: an `OwnedFd` is the same open descriptor as long as it lives.
        let fd = unsafe { AsyncFd::register_with_interest(master, Interest::READABLE | Interest::WRITABLE) }?;
        Ok(Self { fd: Arc::new(fd) })
    }

    fn other(&self) -> Self {
        Self { fd: self.fd.clone() }
    }

    fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads a winsize.
        let code = unsafe { libc::ioctl(self.fd.get_ref().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        nix::errno::Errno::result(code)?;
        Ok(())
    }
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            match guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), room)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // A terminal says EIO when its last process has closed it.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), data)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Control of a process run by exec.
struct ExecControl {
    shim: Connection,
    terminal: Option<Terminal>,
    code: Mutex<Option<i32>>,
}

#[async_trait]
impl SessionControl for ExecControl {
    async fn resize(&self, columns: u16, rows: u16) -> Result<(), RuntimeError> {
        self.terminal.as_ref().map_or(Ok(()), |t| t.resize(columns, rows)).map_err(io_error("resize the terminal"))
    }

    async fn wait(&self) -> Result<i32, RuntimeError> {
        let mut code = self.code.lock().await;
        while code.is_none() {
            match self.shim.receive().await.map_err(io_error("wait for the process"))? {
                Some((Reply::Exited(number), _)) => *code = Some(number),
                // The answer to a kill.
                Some(_) => {}
                // The container has ended, and the process with it.
                None => *code = Some(137),
            }
        }
        Ok(code.unwrap_or(137))
    }

    async fn kill(&self) -> Result<(), RuntimeError> {
        match self.shim.send(&ShimRequest::Kill, &[]).await {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(io_error("kill the process")),
        }
    }
}

/// Control of an attach session.
struct AttachControl {
    container: Arc<Container>,
    terminal: Option<Terminal>,
    states: Mutex<watch::Receiver<ContainerState>>,
}

#[async_trait]
impl SessionControl for AttachControl {
    async fn resize(&self, columns: u16, rows: u16) -> Result<(), RuntimeError> {
        self.terminal.as_ref().map_or(Ok(()), |t| t.resize(columns, rows)).map_err(io_error("resize the terminal"))
    }

    async fn wait(&self) -> Result<i32, RuntimeError> {
        let mut states = self.states.lock().await;
        let state = states.wait_for(|s| matches!(s, ContainerState::Exited { .. })).await;
        match state.as_deref() {
            Ok(ContainerState::Exited { code, .. }) => Ok(*code),
            _ => Err(RuntimeError::NotFound { kind: "container", id: self.container.record.id.clone() }),
        }
    }

    /// Attach does not own the process.
    async fn kill(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// A pipe: the daemon's end, and the other one for the process.
fn output() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (write, read) = pipe::pipe()?;
    Ok((read, write.into_blocking_fd()?))
}

fn input(wanted: bool) -> io::Result<(Option<pipe::Sender>, OwnedFd)> {
    if !wanted {
        return Ok((None, std::fs::File::open("/dev/null")?.into()));
    }
    let (write, read) = pipe::pipe()?;
    Ok((Some(write), read.into_blocking_fd()?))
}

fn started(result: io::Result<(Reply, Vec<OwnedFd>)>) -> Result<Vec<OwnedFd>, RuntimeError> {
    result.map(|(_, fds)| fds).map_err(|e| RuntimeError::Start { message: e.to_string() })
}

impl Container {
    pub(super) async fn exec(&self, spec: ExecSpec) -> Result<Session, RuntimeError> {
        let shim = self.shim()?;
        let request = ShimRequest::Exec { command: spec.command, tty: spec.tty };
        if spec.tty {
            let fds = started(shim.call(&request, &[]).await)?;
            let master = fds.into_iter().next().ok_or_else(no_terminal)?;
            let terminal = Terminal::open(master).map_err(io_error("open the terminal"))?;
            return Ok(Session {
                stdin: spec.stdin.then(|| Box::new(terminal.other()) as _),
                stdout: Some(Box::new(terminal.other())),
                stderr: None,
                control: Box::new(ExecControl { shim, terminal: Some(terminal), code: Mutex::default() }),
            });
        }
        let pipes = || -> io::Result<_> { Ok((input(spec.stdin)?, output()?, output()?)) };
        let ((stdin, in_fd), (stdout, out_fd), (stderr, err_fd)) = pipes().map_err(io_error("make pipes"))?;
        started(shim.call(&request, &[in_fd.as_fd(), out_fd.as_fd(), err_fd.as_fd()]).await)?;
        Ok(Session {
            stdin: stdin.map(|s| Box::new(s) as _),
            stdout: Some(Box::new(stdout)),
            stderr: Some(Box::new(stderr)),
            control: Box::new(ExecControl { shim, terminal: None, code: Mutex::default() }),
        })
    }

    pub(super) async fn attach(self: &Arc<Self>) -> Result<Session, RuntimeError> {
        let shim = self.shim()?;
        let states = Mutex::new(self.states());
        let tty = self.record.spec.tty;
        let (stdout, out_fd) = output().map_err(io_error("make pipes"))?;
        let error = (!tty).then(output).transpose().map_err(io_error("make pipes"))?;
        let (stderr, err_fd) = error.unzip();
        let mut ends: Vec<BorrowedFd<'_>> = vec![out_fd.as_fd()];
        ends.extend(err_fd.as_ref().map(AsFd::as_fd));
        let kept = started(shim.call(&ShimRequest::Attach, &ends).await)?.into_iter().next();
        let (terminal, stdin): (_, Option<Box<dyn AsyncWrite + Send + Unpin>>) = match (tty, kept) {
            (true, Some(master)) => {
                let terminal = Terminal::open(master).map_err(io_error("open the terminal"))?;
                let stdin = self.record.spec.stdin.then(|| Box::new(terminal.other()) as _);
                (Some(terminal), stdin)
            }
            (false, Some(fd)) => {
                let sender = pipe::Sender::from_owned_fd(fd).map_err(io_error("open the container's stdin"))?;
                (None, Some(Box::new(sender)))
            }
            (_, None) => (None, None),
        };
        Ok(Session {
            stdin,
            stdout: Some(Box::new(stdout)),
            stderr: stderr.map(|s| Box::new(s) as _),
            control: Box::new(AttachControl { container: self.clone(), terminal, states }),
        })
    }
}

fn no_terminal() -> RuntimeError {
    RuntimeError::Start { message: "the process came without its terminal".into() }
}

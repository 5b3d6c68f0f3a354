package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
)

// Number of the system call setns; the standard library has no name for it.
var setns = map[string]uintptr{"amd64": 308, "arm64": 268}

type request struct {
	address string
	answer  chan<- result
}

type result struct {
	connection net.Conn
	err        error
}

// forward accepts connections in this network namespace and makes each one's other half in another. A socket stays in
// the namespace where it was made, so one thread that has moved there is all that is needed.
func forward(arguments []string) error {
	listener, err := net.Listen("tcp", arguments[0])
	if err != nil {
		return err
	}
	requests := make(chan request)
	entered := make(chan error)
	go dialFrom(arguments[1], requests, entered)
	if err := <-entered; err != nil {
		return err
	}
	for {
		outside, err := listener.Accept()
		if err != nil {
			return err
		}
		go pass(outside.(*net.TCPConn), arguments[2], requests)
	}
}

func dialFrom(namespace string, requests <-chan request, entered chan<- error) {
	runtime.LockOSThread() // never unlocked: this thread belongs to the other namespace now
	handle, err := os.Open(namespace)
	if err == nil {
		number, known := setns[runtime.GOARCH]
		if !known {
			err = fmt.Errorf("setns is not known on %s", runtime.GOARCH)
		} else if _, _, errno := syscall.RawSyscall(number, handle.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
			err = fmt.Errorf("enter %s: %w", namespace, errno)
		}
		handle.Close()
	}
	entered <- err
	for asked := range requests {
		connection, err := net.DialTimeout("tcp", asked.address, 5*time.Second)
		asked.answer <- result{connection, err}
	}
}

func pass(outside *net.TCPConn, address string, requests chan<- request) {
	defer outside.Close()
	answer := make(chan result, 1)
	requests <- request{address, answer}
	dialled := <-answer
	if dialled.err != nil {
		outside.SetLinger(0) // a reset says "nobody there"; an orderly end would look like an empty answer
		return
	}
	inside := dialled.connection.(*net.TCPConn)
	defer inside.Close()
	sent := make(chan struct{})
	go func() {
		io.Copy(inside, outside)
		inside.CloseWrite()
		close(sent)
	}()
	io.Copy(outside, inside)
	outside.CloseWrite()
	<-sent
}

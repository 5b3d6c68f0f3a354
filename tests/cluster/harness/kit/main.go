// Kit is the one program of the harness: process 1 of the node and of every pod's sandbox, the door from this
// machine into the node's network, and what the harness's own tests run in pods. It needs nothing but a kernel.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const usage = `kit sleep                             wait for SIGTERM, collect orphans
kit show                              who runs here, and what may be written, as key=value lines
kit fetch URL                         prints the status of an HTTP answer; tries for ten seconds to get one
kit serve PORT                        answer 200 to every HTTP request
kit lookup NAME                       prints the addresses of a name; tries for half a minute to find one
kit eat MIB                           hold this much memory
kit forward LISTEN NETNS ADDRESS      pass connections on, into another network namespace
`

func main() {
	commands := map[string]struct {
		arguments int
		run       func([]string) error
	}{
		"sleep":   {0, sleep},
		"show":    {0, show},
		"fetch":   {1, fetch},
		"serve":   {1, serve},
		"lookup":  {1, lookup},
		"eat":     {1, eat},
		"forward": {3, forward},
	}
	arguments := os.Args[1:]
	if len(arguments) == 0 {
		arguments = []string{"sleep"}
	}
	command, known := commands[arguments[0]]
	if !known || len(arguments)-1 != command.arguments {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := command.run(arguments[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kit:", err)
		os.Exit(1)
	}
}

func sleep([]string) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return nil
		}
		for { // one signal may stand for many children
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}

func show([]string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Printf("uid=%d\ngid=%d\nhost=%s\nindex=%s\n", os.Getuid(), os.Getgid(), host, os.Getenv("JOB_COMPLETION_INDEX"))
	for _, folder := range []string{"/", "/tmp", "/dev/shm"} {
		path := strings.TrimSuffix(folder, "/") + "/written"
		fmt.Printf("writable %s=%t\n", folder, os.WriteFile(path, []byte("x"), 0o600) == nil)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "Seccomp", "NoNewPrivs", "CapEff":
			fmt.Printf("%s=%s\n", name, strings.TrimSpace(value))
		}
	}
	return nil
}

func patiently(limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func fetch(arguments []string) error {
	client := http.Client{Timeout: 10 * time.Second}
	return patiently(10*time.Second, func() error {
		answer, err := client.Get(arguments[0])
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		fmt.Println(answer.StatusCode)
		return nil
	})
}

func serve(arguments []string) error {
	return http.ListenAndServe(":"+arguments[0], http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
}

func lookup(arguments []string) error {
	return patiently(30*time.Second, func() error {
		addresses, err := net.LookupHost(arguments[0])
		if err == nil {
			fmt.Println(strings.Join(addresses, " "))
		}
		return err
	})
}

func eat(arguments []string) error {
	size, err := strconv.Atoi(arguments[0])
	if err != nil {
		return err
	}
	held := make([][]byte, 0, size)
	for range size {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 { // memory is only taken when it is touched
			block[i] = 1
		}
		held = append(held, block)
	}
	fmt.Println("holding", len(held), "MiB")
	return sleep(nil)
}

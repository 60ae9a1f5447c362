// Command h2bench measures relaying with the engine beside httputil.ReverseProxy, each in a process of its own.
//
//	h2bench run                        upstream, both proxies and the load; prints the comparison
//	h2bench canned|engine|reverse      one of the processes; prints its address
//	h2bench load ADDRESS               the load alone
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: h2bench run|load|canned|engine|reverse")
		os.Exit(2)
	}
	var err error
	switch os.Args[1] {
	case "canned":
		err = canned()
	case "engine":
		err = engine(os.Args[2])
	case "reverse":
		err = reverse(os.Args[2])
	case "load":
		err = loadOnly(os.Args[2], os.Args[3:])
	case "run":
		err = run(os.Args[2:])
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "h2bench:", err)
		os.Exit(1)
	}
}

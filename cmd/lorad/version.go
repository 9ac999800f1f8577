package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"lorad/job"
)

type versionCmd struct{}

// version is the module's version, or the commit that the program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	rev, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-modified"
		}
	}
	if rev == "" {
		return info.Main.Version
	}
	return rev + dirty
}

func (versionCmd) Run(a *app) error {
	v := map[string]string{"version": version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
	return a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "lorad %s, %s, %s\n", v["version"], v["go"], v["platform"])
	})
}

type exampleCmd struct{}

func (exampleCmd) Run(a *app) error {
	fmt.Fprint(a.stdout, job.Example())
	return nil
}

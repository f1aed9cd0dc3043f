package ocsf

// OtherKinds are log sources beside Windows that files can be of: each is one
// kind of event.
func OtherKinds() [][]LogSource {
	one := func(category, product, service string) []LogSource {
		return []LogSource{{Category: category, Product: product, Service: service}}
	}
	return [][]LogSource{
		one("process_creation", "linux", "sysmon"),
		one("file_event", "linux", "sysmon"),
		one("network_connection", "linux", "sysmon"),
		one("process_termination", "linux", "sysmon"),
		one("process_creation", "macos", ""),
		one("file_event", "macos", ""),
		one("", "linux", "auditd"),
		SyslogKind("auth"),
		SyslogKind("clamav"),
		SyslogKind("cron"),
		SyslogKind("guacamole"),
		SyslogKind("sshd"),
		SyslogKind("sudo"),
		SyslogKind("syslog"),
		SyslogKind("vsftpd"),
	}
}

// SyslogKind returns the log sources of a syslog line of a service: what sshd
// and sudo write is in auth.log, and everything is in the system's log.
func SyslogKind(service string) []LogSource {
	linux := func(s string) LogSource { return LogSource{Product: "linux", Service: s} }
	switch service {
	case "sshd", "sudo":
		return []LogSource{linux(service), linux("auth"), linux("syslog")}
	case "syslog":
		return []LogSource{linux("syslog")}
	}
	return []LogSource{linux(service), linux("syslog")}
}

static inline void container_disks_changed(void) {}

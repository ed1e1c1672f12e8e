//! Volumes from one agent to the next, and their end.

use super::*;

/// Whatever one pod's volumes wait for (a file system that does not answer), others stay current.
#[test]
fn a_pod_whose_volumes_hang_holds_no_other_up() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        reader.set_map("cm", &[("k", "1")]);
        let manager = set_at(dir.path(), &reader);
        let _agent = Agent::on(&manager);
        let first = pod(json!({"containers": [], "volumes": [{"name": "cm", "configMap": {"name": "cm"}}]}));
        let mut second = Pod::clone(&first);
        second.metadata.uid = Some("uid-2".to_owned());
        let second = Arc::new(second);
        let [one, two] = [manager.set_up(&first).await.unwrap(), manager.set_up(&second).await.unwrap()];
        let read = |mounted: &MountedVolumes| fs::read_to_string(mounted.host_paths["cm"].join("k")).unwrap();

        let entry = manager.entry(&PodUid::of(&first));
        let hangs = entry.state.lock().await;
        for value in ["2", "3"] {
            reader.set_map("cm", &[("k", value)]);
            eventually("the other pod's file", || read(&two) == value).await;
        }
        assert_eq!(read(&one), "1");
        drop(hangs);
        eventually("its own file", || read(&one) == "3").await;
    });
}

/// Who waits for volumes that hang is told after a while, and tries again (pkg/kubelet/volumemanager:
/// `podAttachAndMountTimeout`).
#[test]
fn a_wait_for_volumes_ends() {
    in_mount_namespace_on(
        |builder| builder.start_paused(true),
        || async {
            let dir = tempfile::tempdir().unwrap();
            let manager = set_at(dir.path(), &FakeReader::new(3600));
            let pod = pod(json!({"containers": [], "volumes": [{"name": "a", "emptyDir": {}}]}));
            let (uid, day) = (PodUid::of(&pod), Duration::from_secs(86_400));
            let entry = manager.entry(&uid);
            let hangs = entry.state.lock().await;
            let set_up = tokio::time::timeout(day, manager.set_up(&pod)).await.expect("it ends");
            assert!(set_up.unwrap_err().to_string().ends_with("not done within 123s"));
            let torn_down = tokio::time::timeout(day, manager.tear_down(&uid)).await.expect("it ends");
            assert!(torn_down.unwrap_err().to_string().ends_with("not done within 123s"));
            drop(hangs);
            manager.tear_down(&uid).await.unwrap();
        },
    );
}

/// What shows an object that nobody answers for stays as it is: neither its own pod waits for that, nor do others.
#[test]
fn a_refresh_that_hangs_holds_nobody_up() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        reader.set_map("cm", &[("k", "1")]);
        let manager = set_at(dir.path(), &reader);
        let _agent = Agent::on(&manager);
        let labels =
            json!({"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}});
        let first = pod(json!({"containers": [], "volumes": [
            {"name": "all", "projected": {"sources": [labels, {"configMap": {"name": "cm"}}]}}]}));
        let mut second = Pod::clone(&pod(json!({"containers": [], "volumes": [
            {"name": "all", "projected": {"sources": [labels]}}]})));
        second.metadata.uid = Some("uid-2".to_owned());
        let relabelled = |pod: &Pod, value: &str| {
            let mut pod = pod.clone();
            pod.metadata.labels = Some([("a".to_owned(), value.to_owned())].into());
            Arc::new(pod)
        };
        let set_up = async |pod: &Arc<Pod>| {
            time::within("a pod whose volumes are up does not wait", manager.set_up(pod)).await.unwrap().unwrap()
        };
        let [one, two] = [set_up(&first).await, set_up(&Arc::new(second.clone())).await];
        let read = |mounted: &MountedVolumes| fs::read_to_string(mounted.host_paths["all"].join("labels")).unwrap();

        reader.hangs.store(true, Ordering::SeqCst);
        assert_eq!(set_up(&relabelled(&first, "2")).await, one);
        reader.hung.notified().await;
        assert_eq!(set_up(&relabelled(&first, "3")).await, one);
        set_up(&relabelled(&second, "2")).await;
        eventually("the other pod's file", || read(&two) == "a=\"2\"").await;
        assert_eq!(read(&one), "a=\"1\"");
        manager.tear_down(&PodUid::of(&first)).await.unwrap();
    });
}

/// An agent that starts again finds the pod running: all its worker does is
/// what every sync does.
#[test]
fn a_restarted_agent_keeps_the_files_of_running_pods_current() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        reader.set_map("cm", &[("k", "1")]);
        reader.set_map("gone", &[("k", "1")]);
        reader.set_secret("sec", &[("k", "1")]);
        let first = pod(json!({"containers": [], "volumes": [
            {"name": "gone", "configMap": {"name": "gone"}},
            {"name": "cm", "configMap": {"name": "cm"}},
            {"name": "all", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}},
                {"secret": {"name": "sec"}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
            {"name": "down", "downwardAPI": {"items": [
                {"path": "notes", "fieldRef": {"fieldPath": "metadata.annotations"}}]}}]}));
        let mounted = set_at(dir.path(), &reader).set_up(&first).await.unwrap();
        let read = |volume: &str, file: &str| fs::read_to_string(mounted.host_paths[volume].join(file)).unwrap();
        assert_eq!(read("all", "token"), "token-1");
        let mounts = mounts::mounts_below(dir.path()).unwrap().len();

        // Meanwhile one object went, and one changed unseen.
        reader.maps.lock().unwrap().remove("gone");
        reader.set_map("cm", &[("k", "2")]);
        let reborn = set_at(dir.path(), &reader);
        let _agent = Agent::on(&reborn);
        assert_eq!(*reborn.set_up(&first).await.unwrap(), *mounted, "what runs does not wait for what is gone");
        assert_eq!(
            (read("cm", "k"), read("gone", "k"), read("all", "token")),
            ("2".into(), "1".into(), "token-2".into())
        );
        reader.set_map("cm", &[("k", "3")]);
        eventually("a changed object", || read("cm", "k") == "3").await;
        reader.set_map("gone", &[("k", "back")]);
        eventually("an object that is back", || read("gone", "k") == "back").await;

        let mut changed = Pod::clone(&first);
        changed.metadata.labels = Some([("b".to_owned(), "2".to_owned())].into());
        changed.metadata.annotations = Some([("n".to_owned(), "3".to_owned())].into());
        let changed = Arc::new(changed);
        reborn.set_up(&changed).await.unwrap();
        let shown = || (read("all", "labels"), read("down", "notes"));
        eventually("the pod's own", || shown() == ("b=\"2\"".into(), "n=\"3\"".into())).await;
        let issued = reader.issued.load(Ordering::SeqCst);
        reborn.set_up(&changed).await.unwrap();
        assert_eq!(reader.issued.load(Ordering::SeqCst), issued, "nothing changed, nothing is asked for");
        assert_eq!(mounts::mounts_below(dir.path()).unwrap().len(), mounts, "nothing is mounted twice");
    });
}

#[test]
fn what_was_dropped_is_waited_for_before_all_goes() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        let set = set_at(dir.path(), &reader);
        let uid = PodUid::new("uid-1");
        // Mounting, begun for a sync that is interrupted at once.
        let late = dir.path().join("pods/uid-1/volumes/kubernetes.io~empty-dir/late");
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let jobs = set.entry(&uid).jobs.clone();
        let job = {
            let late = late.clone();
            jobs.run(move || {
                wait.recv().unwrap();
                fs::create_dir_all(&late).map_err(|error| error.to_string())
            })
        };
        let mut job = Box::pin(job);
        assert!(futures::poll!(&mut job).is_pending());
        drop(job);
        let mut down = Box::pin(set.tear_down(&uid));
        assert!(futures::poll!(&mut down).is_pending(), "the job runs still");
        go.send(()).unwrap();
        down.await.unwrap();
        assert!(!late.exists());
    });
}

/// A file system that does not answer costs one thread, however often a container is tried again, and nothing that it
/// held up is done behind the back of a later try.
#[test]
fn a_sub_path_is_not_begun_while_one_hangs() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let set = set_at(dir.path(), &FakeReader::new(3600));
        let sub_path = |path: &str, sub: &str| json!({"name": "e", "mountPath": path, "subPath": sub});
        let pod = pod(json!({"volumes": [{"name": "e", "emptyDir": {}}],
            "containers": [{"name": "c", "volumeMounts": [sub_path("/a", "x"), sub_path("/b", "y")]}]}));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let volumes = set.set_up(&pod).await.unwrap();
        let jobs = set.entry(&PodUid::of(&pod)).jobs.clone();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let hangs = {
            let jobs = jobs.clone();
            tokio::spawn(async move { jobs.run(move || wait.recv().map_err(|error| error.to_string())).await })
        };
        tokio::task::yield_now().await;
        for _ in 0..3 {
            let mut tried = Box::pin(set.container_mounts(&pod, container, &[], &volumes));
            assert!(futures::poll!(&mut tried).is_pending());
        }
        go.send(()).unwrap();
        hangs.await.unwrap().unwrap();
        jobs.wait_idle().await;
        let bound = dir.path().join("pods/uid-1/volume-subpaths");
        assert!(!bound.exists(), "of those that gave up, none was begun");
        assert_eq!(set.container_mounts(&pod, container, &[], &volumes).await.unwrap().len(), 2);
        assert!(bound.join("e/c/1").exists());
    });
}

#[test]
fn an_end_does_not_wait_for_the_api_server() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        reader.hangs.store(true, Ordering::SeqCst);
        let set = set_at(dir.path(), &reader);
        let pod = pod(json!({"containers": [], "volumes": [{"name": "cm", "configMap": {"name": "cm"}}]}));
        let waiting = tokio::spawn({
            let (set, pod) = (set.clone(), pod.clone());
            async move { set.set_up(&pod).await }
        });
        reader.hung.notified().await;
        set.tear_down(&PodUid::of(&pod)).await.unwrap();
        let error = waiting.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("being removed"), "{error}");
        assert!(!dir.path().join("pods/uid-1/volumes").exists());
    });
}

/// What a container made of its directory is the container's: upstream's emptyDir leaves a volume alone that is marked
/// as ready (pkg/volume/emptydir/empty_dir.go).
#[test]
fn a_restarted_agent_leaves_scratch_directories_as_containers_made_them() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        let pod = pod(json!({"containers": [], "securityContext": {"fsGroup": 2000}, "volumes": [
            {"name": "disk", "emptyDir": {}}, {"name": "mem", "emptyDir": {"medium": "Memory"}}]}));
        let mounted = set_at(dir.path(), &reader).set_up(&pod).await.unwrap();
        for name in ["disk", "mem"] {
            fs::set_permissions(&mounted.host_paths[name], fs::Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(&mounted.host_paths[name], Some(70), Some(70)).unwrap();
        }
        let set = set_at(dir.path(), &reader);
        set.set_up(&pod).await.unwrap();
        for name in ["disk", "mem"] {
            let meta = fs::metadata(&mounted.host_paths[name]).unwrap();
            assert_eq!((meta.permissions().mode() & 0o7777, meta.gid()), (0o700, 70), "{name}");
        }
        // A machine that started anew has lost what was in memory: that is made again.
        mounts::unmount(&mounted.host_paths["mem"]).unwrap();
        set_at(dir.path(), &reader).set_up(&pod).await.unwrap();
        assert!(mounts::is_other_filesystem(&mounted.host_paths["mem"]).unwrap());
        assert_eq!(mode(&mounted.host_paths["mem"]), 0o2777);
        set.tear_down(&PodUid::of(&pod)).await.unwrap();
        assert!(!dir.path().join("pods/uid-1/volumes").exists());
        assert!(!dir.path().join("pods/uid-1/plugins/kubernetes.io~empty-dir").exists());
    });
}
